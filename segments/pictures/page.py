"""Pictures as one page that needs nothing else: drawings inside it, no script, no network, light and dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from segments.pictures.colors import DARK, LIGHT
from segments.pictures.scene import WIDTH_PX, Box, Picture, Ribbon, Shape, Stroke, Table, Words

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_CSS = """\
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem 1rem 4rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:1.5rem 0 .25rem}
.about{color:var(--muted);margin:0 0 1rem}
figure{margin:0 0 1rem}
.wide{overflow-x:auto}
.wide:focus-visible{outline:2px solid var(--bar);outline-offset:2px}
svg{display:block;width:100%;min-width:44rem;height:auto;font-family:inherit}
table{border-collapse:collapse;width:100%;margin:1.5rem 0;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding-bottom:.4rem}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--rule);text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left;padding-left:0}
thead th{color:var(--muted);font-weight:600}
tbody th{font-weight:400}
.notes{color:var(--muted);padding-left:1.2rem}
@media print{.wide{overflow:visible}svg{min-width:0}}
"""


def page(pictures: Sequence[Picture], *, language: str = "en") -> str:
    """Return one HTML document with the pictures, what each says in words, and their figures as tables."""
    title = " · ".join(picture.title for picture in pictures)
    body = "\n".join(_section(picture, number) for number, picture in enumerate(pictures, start=1))
    return (
        f'<!DOCTYPE html>\n<html lang="{_safe(language)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_safe(title)}</title>\n<style>\n{_theme(LIGHT, DARK)}{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def svg(picture: Picture, *, name: str = "picture") -> str:
    """Return the drawing as an SVG element for a page that defines the colours; `name` makes its ids its own."""
    shapes = "\n".join(_shape(shape) for shape in picture.shapes)
    return (
        f'<svg viewBox="0 0 {WIDTH_PX} {_px(picture.height)}" role="img" aria-labelledby="{name}-title {name}-alt">\n'
        f'<title id="{name}-title">{_safe(picture.title)}</title>\n<desc id="{name}-alt">{_safe(picture.alt)}</desc>\n'
        f"{shapes}\n</svg>"
    )


def _theme(light: Mapping[str, str], dark: Mapping[str, str]) -> str:
    plain, night = (";".join(f"--{name}:{color}" for name, color in theme.items()) for theme in (light, dark))
    # Printed pages are light whatever the screen is.
    return (
        f":root{{color-scheme:light dark;{plain}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{night}}}}}\n"
    )


def _section(picture: Picture, number: int) -> str:
    name = f"picture{number}"
    notes = "".join(f"<li>{_safe(note)}</li>" for note in picture.notes)
    tables = "\n".join(_table(table) for table in picture.tables)
    return (
        f'<section aria-labelledby="{name}-heading">\n<h1 id="{name}-heading">{_safe(picture.title)}</h1>\n'
        f'<p class="about">{_safe(picture.subtitle)}</p>\n'
        # Who cannot use a pointer scrolls a narrow screen's picture by the keyboard: hence tabindex.
        f'<figure>\n<div class="wide" tabindex="0" role="group" aria-label="{_safe(picture.title)}">\n'
        f"{svg(picture, name=name)}\n</div>\n"
        f"<figcaption>{_safe(picture.alt)}</figcaption>\n</figure>\n"
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
        + f"{tables}\n</section>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_safe(column)}</th>' for column in table.columns)
    rows = "\n".join(
        f'<tr><th scope="row">{_safe(row[0])}</th>' + "".join(f"<td>{_safe(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{_safe(table.caption)}">\n'
        f"<table>\n<caption>{_safe(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody>\n</table>\n</div>"
    )


def _shape(shape: Shape) -> str:
    if isinstance(shape, Box):
        place = f'x="{_px(shape.x)}" y="{_px(shape.y)}" width="{_px(shape.width)}" height="{_px(shape.height)}"'
        return _hinted("rect", f'{place} style="fill:var(--{shape.fill})"', shape.hint)
    if isinstance(shape, Words):
        weight = ' font-weight="600"' if shape.bold else ""
        return (
            f'<text x="{_px(shape.x)}" y="{_px(shape.y)}" font-size="{_px(shape.size)}" text-anchor="{shape.anchor}"'
            f'{weight} style="fill:var(--{shape.fill})">{_safe(shape.text)}</text>'
        )
    if isinstance(shape, Stroke):
        return (
            f'<line x1="{_px(shape.x1)}" y1="{_px(shape.y1)}" x2="{_px(shape.x2)}" y2="{_px(shape.y2)}" '
            f'style="stroke:var(--{shape.color});stroke-width:{_px(shape.width)}"/>'
        )
    style = f'style="fill:var(--{shape.fill});fill-opacity:{shape.opacity}"'
    return _hinted("path", f'd="{_band(shape)}" {style}', shape.hint)


def _hinted(element: str, attributes: str, hint: str) -> str:
    if not hint:
        return f"<{element} {attributes}/>"
    return f"<{element} {attributes}><title>{_safe(hint)}</title></{element}>"


def _band(ribbon: Ribbon) -> str:
    middle = _px((ribbon.x1 + ribbon.x2) / 2)
    x1, x2, top1, top2 = _px(ribbon.x1), _px(ribbon.x2), _px(ribbon.top1), _px(ribbon.top2)
    below1, below2 = _px(ribbon.top1 + ribbon.height), _px(ribbon.top2 + ribbon.height)
    return (
        f"M{x1} {top1}C{middle} {top1} {middle} {top2} {x2} {top2}"
        f"L{x2} {below2}C{middle} {below2} {middle} {below1} {x1} {below1}Z"
    )


def _px(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def _safe(text: str) -> str:
    return escape(_UNPRINTABLE.sub("", text), quote=True)
