"""A picture as PNG, for mail and slides: on white, twice as many pixels as it is wide, for sharp screens."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from segments.pictures.colors import LIGHT
from segments.pictures.scene import WIDTH_PX, Box, Picture, Ribbon, Shape, Stroke, Words
from segments.pictures.words import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN_PX = 24
_HEADER_PX = 74
_NOTE_PX = 20
_FONT = "DejaVu Sans"
_ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def png(picture: Picture) -> bytes:
    """Return the picture with its title and notes as a PNG; the same picture gives the same bytes.

    Letters the drawing font lacks, as Chinese ones, are shown as "?": the page shows them all.
    """
    # Loaded here: matplotlib takes most of a second to load, so only who draws pays for it.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    notes = [line for note in picture.notes for line in wrapped(note, WIDTH_PX, 12.5, lines=3)]
    width = WIDTH_PX + 2 * _MARGIN_PX
    height = _HEADER_PX + picture.height + (14 + _NOTE_PX * len(notes) if notes else 0) + 2 * _MARGIN_PX
    with mpl.rc_context({"font.family": "sans-serif", "font.sans-serif": [_FONT]}):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-_MARGIN_PX, WIDTH_PX + _MARGIN_PX)
        axes.set_ylim(height - _MARGIN_PX - _HEADER_PX, -_MARGIN_PX - _HEADER_PX)
        header = [
            Words(x=0, y=24 - _HEADER_PX, text=picture.title, size=24, bold=True),
            Words(x=0, y=50 - _HEADER_PX, text=picture.subtitle, size=14, fill="muted"),
        ]
        footer = [
            Words(x=0, y=picture.height + 20 + _NOTE_PX * row, text=note, size=12.5, fill="muted")
            for row, note in enumerate(notes)
        ]
        for order, shape in enumerate([*header, *picture.shapes, *footer]):
            _draw(axes, shape, order)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=144, facecolor=LIGHT["paper"], metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, shape: Shape, order: int) -> None:
    from matplotlib.patches import Rectangle

    if isinstance(shape, Box):
        patch = Rectangle((shape.x, shape.y), shape.width, shape.height, color=LIGHT[shape.fill], lw=0, zorder=order)
        axes.add_patch(patch)
    elif isinstance(shape, Words):
        _write(axes, shape, order)
    elif isinstance(shape, Stroke):
        axes.plot(
            [shape.x1, shape.x2],
            [shape.y1, shape.y2],
            color=LIGHT[shape.color],
            lw=shape.width,
            zorder=order,
            solid_capstyle="butt",
        )
    else:
        axes.add_patch(_band(shape, order))


def _write(axes: Axes, words: Words, order: int) -> None:
    axes.text(
        words.x,
        words.y,
        _drawable(words.text),
        fontsize=words.size,
        color=LIGHT[words.fill],
        ha=_ANCHORS[words.anchor],
        va="baseline",
        fontweight="bold" if words.bold else "normal",
        zorder=order,
        parse_math=False,  # A "$" in a name is a dollar, not a formula.
    )


def _band(ribbon: Ribbon, order: int) -> Any:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    middle = (ribbon.x1 + ribbon.x2) / 2
    below1, below2 = ribbon.top1 + ribbon.height, ribbon.top2 + ribbon.height
    points = [
        (ribbon.x1, ribbon.top1),
        *((middle, ribbon.top1), (middle, ribbon.top2), (ribbon.x2, ribbon.top2)),
        (ribbon.x2, below2),
        *((middle, below2), (middle, below1), (ribbon.x1, below1)),
        (ribbon.x1, ribbon.top1),
    ]
    curve = [Path.CURVE4] * 3
    path = Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
    return PathPatch(path, facecolor=LIGHT[ribbon.fill], alpha=ribbon.opacity, lw=0, zorder=order)


def _drawable(text: str) -> str:
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont(_FONT)).get_charmap()
    return "".join(letter if ord(letter) in known else "?" for letter in text)
