"""Templates compiled for the wire: what is fixed is encoded once, values are encoded as each message is filled in.

This way only ever succeeds or gives up. Whatever it is not sure of (a name that is missing, a control character, a link
in a value of a text part, a budget that may be used up) raises, and the message is made by `Renderer` and the checks of
`MailStep` instead, which say what is wrong in the author's words. A test compares what both ways make.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from jinja2 import nodes
from jinja2.environment import Template

from templates.bodies import QUOTED, RAW, Coding, is_mostly_ascii
from templates.budget import MAX_OUTPUT, RENDERING, Rendering
from templates.context import EMAIL_SHAPE, SHAPE
from templates.links import TrackingStep
from templates.prepared import Renderer
from templates.sandbox import Names, Sandbox
from templates.wire_code import OWN, Constants, Slots, WireGenerator, fixed, own_names
from templates.wire_values import GaveUp, ValueFunctions, value_functions

_END = "</body>"
_OF_EVERY_MESSAGE = frozenset(SHAPE) | frozenset(EMAIL_SHAPE)
"""Variables that are there whenever a body is made."""


class WireNames(Names):
    """The variables and the pieces of one message."""

    def __init__(self, part: WirePart, variables: dict[str, Any], links: Sequence[bytes], own: Sequence[bytes]) -> None:
        """Take the part, and what one message brings; see `WirePart.filled`."""
        super().__init__(part.environment, variables, part.name)
        if part.reads_message_only:
            self.resolve_or_missing = variables.__getitem__  # type: ignore[method-assign, assignment]  # without a call of ours
        self.links = links
        self.own = own
        self.functions = part.values


@dataclass(frozen=True, slots=True, kw_only=True)
class WirePart:
    """One body compiled for the wire."""

    environment: Sandbox
    name: str
    coding: Coding
    root: Callable[[Any], Iterable[tuple[bytes, ...]]]
    values: ValueFunctions
    reads: frozenset[str]
    """Names that are read as variables, beside the pieces."""
    reads_message_only: bool
    """Whether all of those are what every message has."""
    urls: Sequence[str]
    """The fixed links of the step."""
    always_shows_footer: bool
    bears: int
    """So many octets beyond ASCII in values leave it mostly ASCII, wherever they stand."""
    never_shows_own: bool
    """Whether what the law wants is in no message, since the template does not name it."""
    end: bytes
    """What follows the place of footer and pixel."""

    def filled(self, rendering: Rendering, links: Sequence[bytes], own: Sequence[bytes]) -> bytes:
        """Return the joined pieces up to `end`, footer and pixel left out.

        Args:
            rendering: As of `Renderer.render`.
            links: The token of each fixed link of the step.
            own: For each of `OWN` its token or piece.

        Raises:
            GaveUp: the result might differ from the other way's.
            Exception: whatever a template can raise.
        """
        token = RENDERING.set(rendering)
        try:
            groups = list(self.root(WireNames(self, rendering.variables, links, own)))
            made = b"".join(groups[0] if len(groups) == 1 else chain.from_iterable(groups))
        finally:
            RENDERING.reset(token)
        # Simple values are not paid for, and others only once; a piece of one character has four octets, and would
        # have cost ten.
        if rendering.spent + 3 * len(made) > MAX_OUTPUT:
            raise GaveUp
        return made

    def shows_all(self, made: bytes, own: Sequence[bytes], *, footer_only: bool) -> bool:
        """Return whether the footer, or the two links and the postal address, stand in the body.

        Args:
            made: What `filled` returned.
            own: What it was given.
            footer_only: The footer says more than the others would.

        Raises:
            GaveUp: the template names them, but where they stand cannot be seen.
        """
        unsubscribe, preferences, footer, postal = own
        if self.always_shows_footer:
            return True
        if self.never_shows_own:
            return False
        if footer in made:
            return True
        if footer_only:
            raise GaveUp
        links = unsubscribe in made and preferences in made
        if links and postal in made:
            return True
        # The address may stand there as the author typed it, an own link within what a macro made.
        if links or not self.reads.isdisjoint(OWN):
            raise GaveUp
        return False

    def fixed_links(self) -> dict[str, int]:
        """Return the fixed links that are read as variables, within macros and the like: the index of each."""
        return {name: int(name[5:]) for name in self.reads if name.startswith("_link")}


def compiled(
    renderer: Renderer,
    *,
    constants: Mapping[str, Any],
    urls: list[str],
    tracking: TrackingStep,
    html: bool,
) -> WirePart | None:
    """Return a part compiled for the wire, or None where only the other way can make it.

    Args:
        renderer: The other way: the same part compiled to give text.
        constants: Values that are the same in all messages of the step, by variable.
        urls: The fixed links so far, in the order of `_link0`, `_link1` and so on; those found here are added.
        tracking: Of the step.
        html: Whether links stand in attributes; in a text they are found where they stand.
    """
    environment, name = renderer.environment, renderer.path
    tree = environment.parse(renderer.source, name)
    taken = own_names(tree)
    coding = _coding_of(tree)
    try:
        end = _end_of(tree, coding) if html else b""
        tree = Slots(taken, urls).visit(Constants(constants, taken).visit(tree))
        generator = WireGenerator(
            environment,
            name,
            coding=coding,
            prefixes=tracking.prefixes,
            urls=urls,
            taken=taken,
            bare=None if html else tracking.bare,
        )
        generator.visit(tree)
    except GaveUp:
        return None
    if "footer" in generator.reads:  # Its value differs between HTML and text; the piece does not serve a test of it.
        return None
    code = compile(generator.stream.getvalue(), name, "exec")  # type: ignore[attr-defined]  # a StringIO by default
    template = Template.from_code(environment, code, dict(environment.globals))
    return WirePart(
        environment=environment,
        name=name,
        coding=coding,
        root=template.root_render_func,  # type: ignore[arg-type]  # ours yields tuples of bytes
        values=value_functions(coding, base_url=tracking.base_url, html=html),
        reads=frozenset(generator.reads),
        reads_message_only=generator.reads <= _OF_EVERY_MESSAGE,
        urls=urls,
        always_shows_footer="footer" in generator.always_shows,
        bears=generator.bears,
        never_shows_own=not _suffices(generator.shows | {"postal_address"}) and generator.reads.isdisjoint(OWN),
        end=end,
    )


def _suffices(shown: set[str]) -> bool:
    return "footer" in shown or shown >= {"unsubscribe_url", "preferences_url", "postal_address"}


def _coding_of(tree: nodes.Template) -> Coding:
    text = "".join(data.data for data in tree.find_all(nodes.TemplateData))
    return QUOTED if is_mostly_ascii(text.encode(errors="replace")) else RAW


def _end_of(tree: nodes.Template, coding: Coding) -> bytes:
    """Take what follows the body off the tree, and return it as a piece.

    Raises:
        GaveUp: the last `</body>` need not be the same one in every message.
    """
    last = tree.body[-1] if tree.body else None
    data = last.nodes[-1] if isinstance(last, nodes.Output) else None
    end = ""
    if isinstance(data, nodes.TemplateData) and _END in data.data:
        at = data.data.rindex(_END)
        data.data, end = data.data[:at], data.data[at:]
    elif any(_END in found.data for found in tree.find_all(nodes.TemplateData)) or _imports(tree):
        raise GaveUp
    return fixed(coding, end if end.endswith("\n") else f"{end}\n")


def _imports(tree: nodes.Template) -> bool:
    return tree.find(nodes.Import) is not None or tree.find(nodes.FromImport) is not None
