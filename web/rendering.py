"""The few pages recipients see: plain, readable on a telephone, in the brand's name and colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from web.service import Service

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True, undefined=StrictUndefined
)


def page(service: Service, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page of web/pages."""
    html = _templates.get_template(f"{name}.html").render(brand=service.settings.brand, **values)
    return HTMLResponse(html, status_code=status)


def not_found(service: Service) -> HTMLResponse:
    """Return the page for links that are not, or no longer, ours; the same for all of them."""
    return page(service, "not_found", status=404)


def unavailable(service: Service) -> HTMLResponse:
    """Return the page that asks to try again."""
    response = page(service, "unavailable", status=503)
    response.headers["Retry-After"] = "30"
    return response
