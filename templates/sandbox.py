"""Jinja2 with everything denied that is not on a list, and a budget no template can exceed.

A template sees plain dicts, lists, text, numbers and dates. It may read their items and call a few methods of text and
dicts; operators that can make large values are capped; loops, calls and printed text are paid from one budget, so the
same template fails at the same point on every machine.

Source: the escapes fixed in Jinja 3.1.3 to 3.1.6 (CVE-2024-22195, -34064, -56201, -56326, CVE-2025-27516), and what a
plain ImmutableSandboxedEnvironment still lets through: methods with side effects, huge strings, endless loops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from types import BuiltinMethodType, MappingProxyType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.nodes import EvalContext, Node
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from kernel.documents import did_you_mean
from templates.budget import MAX_RANGE, RENDERING, TURN_COST, capped, charge
from templates.missing import Missing

MAX_NUMBER = 10**18

_NUMBERS = (int, float)
_PRINTED = (str, int, float, Markup, bool, date, datetime, Macro)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TEXT_METHODS = frozenset(
    [
        "upper",
        "lower",
        "title",
        "capitalize",
        "strip",
        "lstrip",
        "rstrip",
        "startswith",
        "endswith",
        "split",
        "isdigit",
        "isalpha",
    ]
)
_METHODS: Mapping[type, frozenset[str]] = {
    str: _TEXT_METHODS,
    Markup: _TEXT_METHODS,
    dict: frozenset({"items", "keys", "values", "get"}),
    list: frozenset({"index", "count"}),
    tuple: frozenset({"index", "count"}),
}
_ATTRIBUTES: Mapping[type, frozenset[str]] = {
    **_METHODS,
    date: frozenset({"year", "month", "day"}),
    datetime: frozenset({"year", "month", "day", "hour", "minute"}),
    LoopContext: frozenset(
        [
            "index",
            "index0",
            "revindex",
            "revindex0",
            "first",
            "last",
            "length",
            "previtem",
            "nextitem",
            "cycle",
            "changed",
            "depth",
        ]
    ),
}


class Names(Context):
    """The variables of one rendering, without what Jinja's own context prepares for inheritance."""

    blocks: Mapping[str, Any] = MappingProxyType({})  # type: ignore[assignment]  # nobody adds one

    def __init__(self, environment: Sandbox, variables: dict[str, Any], name: str) -> None:
        """Take the variables of a message; they are only read."""
        self.parent = variables
        self.vars = {}
        self.environment = environment
        self.eval_ctx = environment.eval_ctx
        self.exported_vars = set()
        self.name = name
        self.globals_keys = environment.global_names

    def resolve_or_missing(self, key: str) -> Any:
        """Return a variable of the template, of the message, or of the environment."""
        for names in (self.parent, self.vars, self.environment.globals):
            if key in names:
                return names[key]
        return missing


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment every template is compiled in; one per kind of part."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, *, autoescape: bool, filters: Mapping[str, Callable[..., Any]], **options: Any) -> None:
        super().__init__(
            autoescape=autoescape,
            undefined=Missing,
            finalize=printed,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            auto_reload=False,
            **options,
        )
        self.globals.clear()
        self.globals["range"] = capped_range
        self.global_names = set(self.globals)
        self.eval_ctx = EvalContext(self)
        self.filters = {**filters, "_counted": _counted, "_spend": _spend, "_captured": _captured, "_joined": _joined}
        kept = "boolean defined divisibleby eq even false ge gt in integer iterable le lower lt mapping ne none number"
        self.tests = {name: self.tests[name] for name in f"{kept} odd sequence string true undefined upper".split()}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an item of a dict, else an attribute that is on the list, else a Missing."""
        kind = type(obj)
        if kind is dict and attribute in obj:
            return obj[attribute]
        if attribute in _ATTRIBUTES.get(kind, ()):
            return getattr(obj, attribute)
        if kind.__name__ == "TemplateModule" and not attribute.startswith("_"):
            return obj.__dict__.get(attribute, self.undefined(obj=obj, name=attribute))
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item of a dict, list or text, else a Missing."""
        if isinstance(obj, dict):
            if isinstance(argument, str | int | float | bool) and argument in obj:
                return obj[argument]
        elif isinstance(obj, list | tuple | str) and isinstance(argument, int | slice):
            try:
                return obj[argument]
            except IndexError:
                pass
        return self.undefined(obj=obj, name=argument)

    def is_safe_callable(self, obj: Any) -> bool:
        """Return whether a template may call it: macros, our range, and the listed methods of plain values."""
        if isinstance(obj, Macro) or obj is capped_range:
            return True
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, LoopContext):
            return obj.__name__ in ("cycle", "changed")
        if isinstance(owner, Markup):
            return getattr(obj, "__name__", "") in _TEXT_METHODS
        return isinstance(obj, BuiltinMethodType) and obj.__name__ in _METHODS.get(type(owner), ())

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - Jinja's own form
        """Call what is safe to call, and charge for it."""
        charge(TURN_COST)
        if isinstance(__obj, Missing) or __self.is_safe_callable(__obj):
            return __context.call(__obj, *args, **kwargs)
        raise SecurityError(f"{type(__obj).__name__} may not be called in a template")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute with numbers within bounds; join texts and lists with + within bounds."""
        if isinstance(left, Missing) or isinstance(right, Missing):
            return self.binop_table[operator](left, right)
        if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
            return _number(operator, left, right, self.binop_table[operator])
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return capped(left + right)
        if operator == "+" and isinstance(left, list) and isinstance(right, list):
            return _bounded(left + right)
        raise SecurityError(f"{operator} works on numbers only here, not on {_kind(left)} and {_kind(right)}")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Guard(self).visit(tree)
        return tree


class _Guard(NodeTransformer):
    """Puts the budget into a syntax tree, and refuses at compile time what is not on the lists."""

    def __init__(self, environment: Sandbox) -> None:
        self._environment = environment

    def _filter(self, node: Any, name: str, *arguments: nodes.Expr, lineno: int) -> nodes.Filter:
        made = nodes.Filter(node, name, list(arguments), [], None, None, lineno=lineno)
        made.set_environment(self._environment)
        return made

    def _refuse(self, node: Node, message: str) -> None:
        raise TemplateAssertionError(message, node.lineno)

    def visit_For(self, node: nodes.For) -> Node:  # noqa: N802 - named after the node
        if node.recursive:
            self._refuse(node, "recursive loops are not allowed")
        self.generic_visit(node)
        cost = nodes.Const(TURN_COST + _static_size(node.body), lineno=node.lineno)
        node.iter = self._filter(node.iter, "_counted", cost, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> Node:  # noqa: N802
        return self._spending(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> Node:  # noqa: N802
        return self._spending(node)

    def _spending(self, node: nodes.Macro | nodes.CallBlock) -> Node:
        self.generic_visit(node)
        spend = self._filter(nodes.Const(_static_size(node.body), lineno=node.lineno), "_spend", lineno=node.lineno)
        node.body = [nodes.ExprStmt(spend, lineno=node.lineno), *node.body]
        return node

    def visit_Concat(self, node: nodes.Concat) -> Node:  # noqa: N802
        self.generic_visit(node)
        return self._filter(nodes.List(node.nodes, lineno=node.lineno), "_joined", lineno=node.lineno)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = self._filter(node.filter, "_captured", lineno=node.lineno)
        return node

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.filter, nodes.Filter) and node.filter.name != "_link":
            node.filter = self._filter(node.filter, "_captured", lineno=node.lineno)
        return node

    def visit_Filter(self, node: nodes.Filter) -> Node:  # noqa: N802
        self.generic_visit(node)
        self._known(node, node.name, self._environment.filters, "filter")
        return node

    def visit_Test(self, node: nodes.Test) -> Node:  # noqa: N802
        self.generic_visit(node)
        self._known(node, node.name, self._environment.tests, "test")
        return node

    def _known(self, node: Node, name: str, known: Mapping[str, Any], kind: str) -> None:
        if name not in known:
            advice = did_you_mean(name, [word for word in known if not word.startswith("_")])
            self._refuse(node, f"there is no {kind} {name!r} ({advice})")


def _static_size(body: list[Node]) -> int:
    """Return the characters of plain text in the body; loops and macros in it pay for theirs."""
    size = 0
    for node in body:
        if isinstance(node, nodes.TemplateData):
            size += len(node.data)
        elif not isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            size += _static_size(list(node.iter_child_nodes()))
    return size


class _Counted:
    """An iterable whose every turn is paid for; keeps a length, for `loop.length` and `loop.last`."""

    __slots__ = ("_cost", "_items")

    def __init__(self, items: Any, cost: int) -> None:
        self._items = items if hasattr(items, "__len__") else list(items)
        self._cost = cost

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            charge(self._cost)
            yield item


# The context argument of these keeps Jinja from computing them at compile time, where there is no budget.
@pass_context
def _counted(context: Any, items: Any, cost: int) -> _Counted:  # noqa: ARG001
    return _Counted(items, cost)


@pass_context
def _spend(context: Any, cost: int) -> str:  # noqa: ARG001
    charge(cost)
    return ""


@pass_context
def _captured(context: Any, value: Any) -> Any:
    """Return what a set or filter block captured; Jinja prints it unescaped, so plain text is escaped here."""
    return capped(escape(value) if context.eval_ctx.autoescape else value)


@pass_context
def _joined(context: Any, values: list[Any]) -> Any:
    if context.eval_ctx.autoescape and any(hasattr(value, "__html__") for value in values):
        return capped(Markup("").join(escape(printed(value)) for value in values))
    return capped("".join(str(printed(value)) for value in values))


def printed(value: Any) -> Any:
    """Return a value as it is printed; nothing for None. Charges for it.

    Raises:
        SecurityError: a whole dict or list, or an object, or a line break in a subject's value.
    """
    if value is None:
        return ""
    rendering = RENDERING.get()
    if rendering is None:
        return value
    if isinstance(value, str):
        rendering.charge(len(value))
        if rendering.one_line and _CONTROL.search(value):
            raise SecurityError(f"the value {value[:60]!r} holds a line break or another control character")
        return value
    if not isinstance(value, _PRINTED) and not isinstance(value, Missing):
        raise SecurityError(f"{_kind(value)} cannot be printed; name one of its entries")
    rendering.charge(10)
    return value


def capped_range(*bounds: int) -> range:
    """Return Python's range, with at most MAX_RANGE numbers."""
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise SecurityError(f"range may count {MAX_RANGE:,} numbers, not {len(numbers):,}")
    charge(len(numbers))
    return numbers


def _bounded(items: list[Any]) -> list[Any]:
    if len(items) > MAX_RANGE:
        raise SecurityError(f"a list may have {MAX_RANGE:,} items")
    return items


def _number(operator: str, left: float, right: float, compute: Callable[[Any, Any], Any]) -> Any:
    if operator == "**" and (abs(left) > 1_000_000 or abs(right) > 16):
        raise SecurityError("this power is too large")
    value = compute(left, right)
    if isinstance(value, complex) or abs(value) > MAX_NUMBER:
        raise SecurityError(f"numbers may go up to {MAX_NUMBER:.0e}")
    return value


def _kind(value: Any) -> str:
    names = {"str": "a text", "Markup": "a text", "dict": "a group of values", "list": "a list", "tuple": "a list"}
    name = type(value).__name__
    return names.get(name, f"a value of kind {name}")
