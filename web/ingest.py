"""POST /v1/orders and /v1/events: facts from programs, one or many, idempotent by the sender's own id."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse

from store.intake import MAX_ITEMS, EventIn, Intake, OrderIn, Refused, accept_events, accept_orders
from web.guards import has_bearer
from web.service import service_of

Model = TypeVar("Model", bound=BaseModel)
ModelIn_contra = TypeVar("ModelIn_contra", bound=BaseModel, contravariant=True)


class _Accept(Protocol[ModelIn_contra]):
    def __call__(
        self, connection: Connection, items: Sequence[ModelIn_contra], *, now: datetime, currency: str | None
    ) -> Intake: ...


async def post_orders(request: Request) -> JSONResponse:
    """Take one order or a list of them."""
    return await _take(request, OrderIn, "order", accept_orders)


async def post_events(request: Request) -> JSONResponse:
    """Take one event or a list of them."""
    return await _take(request, EventIn, "event", accept_events)


async def _take(request: Request, model: type[Model], id_field: str, accept: _Accept[Model]) -> JSONResponse:
    service = service_of(request)
    token = service.workspace.api_token
    if token is None:
        return _error(503, "the API is closed: set CARILLON_API_TOKEN (or `web: api_token` in carillon.yaml)")
    if not has_bearer(request, token):
        answer = _error(401, "send the API token as `Authorization: Bearer …`")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="carillon"'
        return answer
    try:
        given = json.loads(await request.body(), parse_constant=_refuse_constant, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        return _error(400, f"the body is not JSON: {error}")
    items = given if isinstance(given, list) else [given]
    if len(items) > MAX_ITEMS:
        return _error(413, f"a batch holds at most {MAX_ITEMS} items, got {len(items)}")
    places, good, refused = _sorted_out(items, model, id_field)
    now, currency = service.now(), service.settings.currency
    intake = await service.write_alone(lambda connection: accept(connection, good, now=now, currency=currency))
    refused += [Refused(index=places[one.index], id=one.id, reason=one.reason) for one in intake.refused]
    body = {
        "new": intake.new,
        "changed": intake.changed,
        "unchanged": intake.unchanged,
        "refused": [asdict(one) for one in sorted(refused, key=lambda one: one.index)],
    }
    return JSONResponse(body, status_code=422 if refused else 200)


def _sorted_out(
    items: Sequence[Any], model: type[Model], id_field: str
) -> tuple[list[int], list[Model], list[Refused]]:
    """Return the places and models of items that are well formed, and the others with their reasons."""
    places, good, refused = [], [], []
    for index, item in enumerate(items):
        try:
            _check_text(item)
            good.append(model.model_validate(item))
            places.append(index)
        except ValidationError as error:
            refused.append(Refused(index=index, id=_id_of(item, id_field), reason=_words(error)))
        except ValueError as error:
            refused.append(Refused(index=index, id=_id_of(item, id_field), reason=str(error)))
    return places, good, refused


def _check_text(item: Any) -> None:
    """Refuse characters and numbers no database keeps, before they spoil the whole batch."""
    try:
        text = json.dumps(item, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is no text") from None
    except ValueError:
        raise ValueError("holds a number too large to be kept, as 1e999") from None
    if "\\u0000" in text:
        raise ValueError("holds a NUL character")


def _words(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'item'}: {one['msg']}" for one in problems)


def _id_of(item: Any, id_field: str) -> str:
    value = item.get(id_field) if isinstance(item, dict) else None
    # Half a surrogate pair cannot be sent back either.
    return value[:200].encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else ""


def _whole(digits: str) -> int | float:
    """Return a whole number, or infinity where it is as much too large as 1e999 is, to be refused with its item."""
    size = float(digits)
    return int(digits) if math.isfinite(size) else size


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _error(status: int, words: str) -> JSONResponse:
    return JSONResponse({"error": words}, status_code=status)
