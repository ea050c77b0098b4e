"""Jinja's code generator, taught to write code that yields the pieces of a body instead of text.

Fixed text stands in the code as it stands on the wire. A tracked link, an own link and the footer are look-ups in lists
that the message brings; an expression that stands several times is worked out once.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.nodes import Node
from jinja2.visitor import NodeTransformer
from markupsafe import escape

from templates.bodies import Coding, wide_octets
from templates.context import SHAPE
from templates.links import BadLink, Prefixes, is_web_link, target_of, without_punctuation
from templates.prepared import FAILURES
from templates.sandbox import Sandbox
from templates.wire_values import CONTROLS, GaveUp

OWN = ("unsubscribe_url", "preferences_url", "footer", "postal_address")
"""What stands in every message's list of own things, in this order: the tokens of two links, and two pieces.

The last is `brand.postal_address`.
"""
ALWAYS = {group: frozenset(SHAPE[group] or ()) for group in ("contact", "account")}
"""What is in the dicts of every message."""
_ASIDE = (nodes.Macro, nodes.CallBlock, nodes.AssignBlock, nodes.FilterBlock)
"""Nodes whose output goes into a text of Jinja's and not to the wire."""
_PURE = (nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Const, nodes.Filter)
_MOST_KEPT = 10_000
"""Octets of a value that may stand in several places and is paid for once."""
_DELIMITER = re.compile(r"[\s<>\"'`]")
"""What no link in a text goes on after; the same as in `TrackingStep.bare`."""
_BEGUN = re.compile(r"https?://$")
_ENDS_OF_SCHEMES = ("/", "://", "s://", "ps://", "tps://", "ttps://", "p://", "tp://", "ttp://")


@dataclass(frozen=True, slots=True)
class Slot:
    """Something of each message in its place: `links[index]` or `own[index]`."""

    source: str
    index: int


@dataclass(frozen=True, slots=True)
class Run:
    """A link that stands in a text and is made of values: what it consists of, up to where it surely ends."""

    parts: Sequence[str | nodes.Expr]
    open: bool
    """Whether it may go on in what is put out next."""


def own_names(tree: nodes.Template) -> set[str]:
    """Return every name the template itself gives a meaning to."""
    names = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    names |= {node.name for node in tree.find_all(nodes.Macro)}
    names |= {node.target for node in tree.find_all(nodes.Import)}
    for node in tree.find_all(nodes.FromImport):
        names |= {name if isinstance(name, str) else name[1] for name in node.names}
    return names


def fixed(coding: Coding, text: str) -> bytes:
    """Return fixed text as a piece. Raises GaveUp where no mail may carry it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if CONTROLS.search(text):
        raise GaveUp
    return coding.fixed(text.encode())


class Constants(NodeTransformer):
    """Writes what is the same in all messages of the step into the template."""

    def __init__(self, constants: Mapping[str, Any], taken: set[str]) -> None:
        """Take values by variable, and the names the template gives a meaning of its own."""
        self._constants = {name: value for name, value in constants.items() if name not in taken}

    def visit_Getattr(self, node: nodes.Getattr) -> Node:  # noqa: N802 - named after the node
        group = self._constants.get(node.node.name) if isinstance(node.node, nodes.Name) else None
        if isinstance(group, dict) and node.attr in group and node.attr != OWN[3]:
            return nodes.Const(group[node.attr], lineno=node.lineno)
        return self.generic_visit(node)

    def visit_Name(self, node: nodes.Name) -> Node:  # noqa: N802
        value = self._constants.get(node.name)
        return nodes.Const(value, lineno=node.lineno) if isinstance(value, str) and node.ctx == "load" else node


class Slots(NodeTransformer):
    """Puts slots where a template prints a tracked link, an own link or the footer."""

    def __init__(self, taken: set[str], urls: list[str]) -> None:
        """Take the names the template gives a meaning of its own, and the fixed links; those found are added."""
        self._taken = taken
        self._urls = urls

    def visit_Output(self, node: nodes.Output) -> Node:  # noqa: N802
        node.nodes = [self._slotted(child) for child in node.nodes]
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> Node:  # noqa: N802
        """A link of an attribute goes through the filter of links; an own one or a fixed one needs no filtering."""
        inner = node.body[0] if len(node.body) == 1 else None
        if node.filter.name == "_link" and isinstance(inner, nodes.Output):
            slotted = self._slotted(inner.nodes[0]) if len(inner.nodes) == 1 else None
            if isinstance(slotted, nodes.Const) and slotted.value in (Slot("own", 0), Slot("own", 1)):
                return nodes.Output([slotted], lineno=node.lineno)
            url = _fixed_url(inner)
            if url is not None:
                return nodes.Output([nodes.Const(_slot_for(url, self._urls), lineno=node.lineno)], lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> Node:  # noqa: N802
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> Node:  # noqa: N802
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> Node:  # noqa: N802
        return node

    def _slotted(self, child: nodes.Expr) -> nodes.Expr:
        slot = self._slot_of(child)
        return child if slot is None else nodes.Const(slot, lineno=child.lineno)

    def _slot_of(self, child: nodes.Expr) -> Slot | None:
        if isinstance(child, nodes.Getattr) and isinstance(child.node, nodes.Name) and child.node.name == "brand":
            return Slot("own", 3) if child.attr == OWN[3] and "brand" not in self._taken else None
        if not isinstance(child, nodes.Name) or child.name in self._taken:
            return None
        if child.name in OWN[:3]:
            return Slot("own", OWN.index(child.name))
        number = child.name.removeprefix("_link")
        return Slot("links", int(number)) if number.isdigit() and int(number) < len(self._urls) else None


def _fixed_url(output: nodes.Output) -> str | None:
    """Return the web link written in an attribute, or None where it is made of values or is no web link."""
    text = ""
    for child in output.nodes:
        if isinstance(child, nodes.TemplateData):
            text += child.data
        elif isinstance(child, nodes.Const) and isinstance(child.value, str):
            text += escape(child.value)
        else:
            return None
    url = html.unescape(text).strip()
    try:
        return url if is_web_link(url) and target_of(url, {}) else None
    except BadLink:
        return None


def _slot_for(url: str, urls: list[str]) -> Slot:
    if url not in urls:
        urls.append(url)
    return Slot("links", urls.index(url))


class WireGenerator(CodeGenerator):
    """Writes the code, which yields tuples of pieces.

    Afterwards `reads` holds the names it reads as variables, `shows` and `always_shows` those of `OWN` that a message
    may show, and that every message does.
    """

    def __init__(
        self,
        environment: Sandbox,
        name: str,
        *,
        coding: Coding,
        prefixes: Prefixes,
        urls: list[str],
        taken: set[str],
        bare: re.Pattern[str] | None,
    ) -> None:
        """Take what `templates.wire.compiled` knows; links found in a text are added to `urls`."""
        super().__init__(environment, name, name)
        self.reads: set[str] = set()
        self.shows: set[str] = set()
        self.always_shows: set[str] = set()
        self._coding = coding
        self._around_click = coding.around(prefixes.click, b"")
        own = prefixes.unsubscribe, prefixes.preferences
        self._around_own = [*(coding.around(prefix, b"") for prefix in own), (b"", b""), (b"", b"")]
        self._pending = b""
        """Fixed octets that are still to be written."""
        self._urls = urls
        self._taken = taken
        self._bare = bare
        self._loops = 0
        self._turns = False
        """Whether there is a loop."""
        self._certain_octets = self._wide_octets = 0
        """Of fixed text: those every message surely has, and those beyond ASCII that one may have."""
        self._first = True
        self._open_link = False
        self._seen: Counter[str] = Counter()
        self._kept: dict[str, str] = {}
        """The variables that keep the pieces of expressions that stand several times."""
        self._certain: set[str] = set()
        """Those of them that surely have been set where the code goes on."""

    @property
    def bears(self) -> int:
        """See `WirePart.bears`."""
        if self._turns:
            return 0
        places = max(self._seen.values(), default=1)
        return max(0, (self._certain_octets // 6 - self._wide_octets) // places)

    def write_commons(self) -> None:
        super().write_commons()
        self.writeline("w_links, w_own = context.links, context.own")
        self.writeline("w_shown, w_made, w_linked, w_plain, w_bare = context.functions")
        if self._kept:
            self.writeline(f"{' = '.join(self._kept.values())} = None")

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802
        for output in _outputs(node):
            self._seen.update(repr(child) for child in output.nodes if self._is_pure(child))
        several = [key for key, times in self._seen.items() if times > 1]
        self._kept = {key: f"w_kept{number}" for number, key in enumerate(several)}
        super().visit_Template(node, frame)

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        self._loops += 1
        self._turns = True
        super().visit_For(node, frame)
        self._loops -= 1
        if self._open_link:
            raise GaveUp

    def visit_Name(self, node: nodes.Name, frame: Frame) -> None:  # noqa: N802
        self.reads.add(node.name)
        super().visit_Name(node, frame)

    def visit_Getattr(self, node: nodes.Getattr, frame: Frame) -> None:  # noqa: N802
        """Look up what every contact and account has in its dict; where it has not, the other way says so."""
        group = node.node.name if isinstance(node.node, nodes.Name) and node.node.name not in self._taken else ""
        if node.attr not in ALWAYS.get(group, ()):
            super().visit_Getattr(node, frame)
            return
        self.reads.add(group)
        self.write(f"{frame.symbols.ref(group)}[{node.attr!r}]")

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802
        if frame.buffer is not None:
            super().visit_Output(node, frame)
            return
        # One tuple for the whole output: resuming a generator for each piece would cost more than most pieces do.
        self.writeline("yield (", node)
        self.indent()
        for item in self._items(node, frame):
            if isinstance(item, str):
                raw = item.encode(errors="replace")
                self._certain_octets += len(raw) if frame.rootlevel else 0
                self._wide_octets += len(wide_octets(raw))
                self._write_fixed(item)
                continue
            self._comes_something()
            if isinstance(item, Slot):
                self._write_slot(item, certain=frame.rootlevel)
            elif isinstance(item, Run):
                self._write_run(item, frame)
            else:
                self._write_value(item, frame)
        self._flush()
        self.outdent()
        self.writeline(")")

    def _items(self, node: nodes.Output, frame: Frame) -> Sequence[str | Slot | nodes.Expr | Run]:
        """Return what the output prints, fixed text that stands together in one."""
        items: list[str | Slot | nodes.Expr] = []
        for child in node.nodes:
            constant = self._constant(child, frame)
            if isinstance(constant, str) and items and isinstance(items[-1], str):
                items[-1] += constant
            else:
                items.append(child if constant is None else constant)
        return items if self._bare is None else list(_with_runs(items, self._bare))

    def start_write(self, frame: Frame, node: Node | None = None) -> None:
        """See CodeGenerator: what comes is what a block made."""
        if frame.buffer is None:
            self._comes_something()
            link = isinstance(node, nodes.FilterBlock) and node.filter.name == "_link"
            self.writeline("yield (w_linked(" if link else "yield (w_made(", node)
        else:
            super().start_write(frame, node)

    def end_write(self, frame: Frame) -> None:
        """See CodeGenerator."""
        if frame.buffer is None:
            self.write("),)")
        else:
            super().end_write(frame)

    def _constant(self, child: nodes.Expr, frame: Frame) -> str | Slot | None:
        """Return the child's text or slot, or None for what each message works out."""
        if isinstance(child, nodes.Const) and isinstance(child.value, Slot):
            return child.value
        try:
            return self._output_child_to_const(child, frame, self._make_finalize())
        except (nodes.Impossible, *FAILURES):
            return None

    def _write_slot(self, slot: Slot, *, certain: bool) -> None:
        if slot.source == "own":
            self.shows.add(OWN[slot.index])
            if certain:
                self.always_shows.add(OWN[slot.index])
        before, after = self._around_own[slot.index] if slot.source == "own" else self._around_click
        self._pending += before
        self._flush()
        self.writeline(f"w_{slot.source}[{slot.index}],")
        self._pending = after

    def _write_value(self, child: nodes.Expr, frame: Frame) -> None:
        self._flush()
        kept = self._kept.get(repr(child)) if not self._loops and self._is_pure(child) else None
        if kept is None:
            self.writeline("w_shown(", child)
            self.visit(child, frame)
            self.write("),")
        elif kept in self._certain:
            self.writeline(f"{kept},")
        else:
            self.writeline(f"({kept} := w_shown(" if frame.rootlevel else f"{kept} or ({kept} := w_shown(", child)
            self.visit(child, frame)
            self.write(f", {_MOST_KEPT})),")
            if frame.rootlevel:
                self._certain.add(kept)

    def _write_run(self, run: Run, frame: Frame) -> None:
        self._flush()
        self.writeline("w_bare((")
        for part in run.parts:
            if isinstance(part, str):
                self.write(f"{part!r}, ")
            else:
                self.write("w_plain(")
                self.visit(part, frame)
                self.write("), ")
        self.write(")),")
        self._open_link = run.open

    def _is_pure(self, child: Node) -> bool:
        """Return whether the expression gives the same wherever it stands outside loops."""
        if isinstance(child, nodes.Name) and (child.name in self._taken or child.ctx != "load"):
            return False
        return isinstance(child, _PURE) and all(self._is_pure(inner) for inner in child.iter_child_nodes())

    def _comes_something(self) -> None:
        """Note that what comes is not fixed: a link that was being written would go on in it."""
        if self._open_link:
            raise GaveUp
        self._first = False

    def _write_fixed(self, text: str) -> None:
        if not text:
            return
        if self._bare is not None:
            text = self._with_links(text, self._bare)
        self._first = False
        self._write_piece(text)

    def _with_links(self, text: str, bare: re.Pattern[str]) -> str:
        """Write a text up to its last link, and return what is left.

        Raises:
            GaveUp: a link might begin in what came before and go on here.
        """
        begun = not self._first or self._loops > 0
        if self._open_link or (begun and text.startswith(_ENDS_OF_SCHEMES)):
            raise GaveUp
        self._open_link = text.endswith("://")
        end = 0
        for found in bare.finditer(text):
            self._open_link |= found.end() == len(text)
            url = without_punctuation(found[0])
            try:
                target_of(url, {})
            except BadLink:
                continue
            self._write_piece(text[end : found.start()])
            self._write_slot(_slot_for(url, self._urls), certain=True)
            end = found.start() + len(url)
        return text[end:]

    def _write_piece(self, text: str) -> None:
        self._pending += fixed(self._coding, text)

    def _flush(self) -> None:
        if self._pending:
            self.writeline(f"{self._pending!r},")
            self._pending = b""


def _with_runs(items: list[str | Slot | nodes.Expr], bare: re.Pattern[str]) -> Iterator[str | Slot | nodes.Expr | Run]:
    """Yield the items of a text, those that make one link together as one.

    Raises:
        GaveUp: an own link stands within another.
    """
    waiting = items[::-1]
    while waiting:
        item = waiting.pop()
        start = _open_at(item, bare) if isinstance(item, str) and waiting else None
        if start is None or not isinstance(item, str):
            yield item
            continue
        yield item[:start]
        parts: list[str | nodes.Expr] = [item[start:]]
        ends = None
        while waiting and ends is None:
            part = waiting.pop()
            if isinstance(part, Slot):
                raise GaveUp
            ends = _DELIMITER.search(part) if isinstance(part, str) else None
            if ends is not None and isinstance(part, str):
                waiting.append(part[ends.start() :])
                part = part[: ends.start()]
            parts.append(part)
        yield Run(parts, open=ends is None)


def _open_at(text: str, bare: re.Pattern[str]) -> int | None:
    """Return where a link begins that goes on after the text, or None."""
    for found in bare.finditer(text):
        if found.end() == len(text):
            return found.start()
    begun = _BEGUN.search(text)
    return begun.start() if begun else None


def _outputs(node: Node) -> Iterator[nodes.Output]:
    """Yield the outputs whose values may be kept: not those of loops, nor those that go into a text of Jinja's."""
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Output):
            yield child
        elif not isinstance(child, (nodes.For, *_ASIDE)):
            yield from _outputs(child)
