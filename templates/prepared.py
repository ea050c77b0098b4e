"""Templates compiled and checked once, ready to be filled in for any number of messages."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.environment import Template
from jinja2.exceptions import TemplateError
from markupsafe import Markup, escape

from kernel.documents import did_you_mean
from kernel.errors import InputError, Problem
from templates import markup
from templates.budget import RENDERING, Rendering
from templates.context import SHAPE
from templates.filters import template_filters
from templates.links import BadLink
from templates.markup import Source
from templates.problems import Place, TemplateProblem, one_line, problem_at, refused
from templates.sandbox import Names, Sandbox
from templates.sources import Piece, pieces_of, reference, resolved, text_of

FAILURES = (
    TemplateError,
    BadLink,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)
"""What a template can raise while it is filled in; anything else is a fault of ours and passes."""


class Renderer:
    """One compiled part of a template; `environment` and `source` are what it was compiled of."""

    def __init__(
        self,
        template: Template,
        environment: Sandbox,
        source: str,
        places: Mapping[str, Mapping[int, Place]],
        path: str,
    ) -> None:
        self.environment = environment
        self.source = source
        self.path = path
        self._template = template
        self._places = places

    def render(self, rendering: Rendering) -> str:
        """Return the part filled in with the rendering's variables.

        Raises:
            TemplateProblem: an undefined name, a bad link, a used-up budget: file, line and what is wrong.
        """
        token = RENDERING.set(rendering)
        try:
            context = Names(self.environment, rendering.variables, self.path)
            return "".join(self._template.root_render_func(context))
        except FAILURES as error:
            where = self._place_of(error)
            raise TemplateProblem(f"{where}: {one_line(_in_words(error))}") from error
        finally:
            RENDERING.reset(token)

    def _place_of(self, error: BaseException) -> Place:
        """Return where in the author's files the innermost template frame of the traceback stands."""
        place = Place(self.path, 1)
        trace = error.__traceback__
        while trace is not None:
            template = trace.tb_frame.f_globals.get("__jinja_template__")
            if template is not None:
                line = template.get_corresponding_lineno(trace.tb_lineno)
                place = place_near(self._places.get(template.name or "", {}), line, template.name or self.path)
            trace = trace.tb_next
        return place


def place_near(places: Mapping[int, Place], line: int, path: str) -> Place:
    """Return the place of a line of prepared source, or of the nearest construct above it."""
    while line > 1 and line not in places:
        line -= 1
    return places.get(line, Place(path, line))


def _in_words(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "macros call one another without end"
    if isinstance(error, TemplateError):
        return str(error.message)
    return f"{error}" if isinstance(error, BadLink) else f"{type(error).__name__}: {error}"


class Workshop:
    """Compiles the parts of one template over its pinned files."""

    def __init__(
        self,
        files: Mapping[str, str],
        shape: Mapping[str, frozenset[str] | None],
        images: Mapping[str, str] | None = None,
    ) -> None:
        """Take the files, the names a template knows beside its person's data, and content ids of images by source."""
        self._files = files
        self._images = images or {}
        self.shown: set[str] = set()
        """Sources of images that imported files name."""
        self._shape = {**SHAPE, **shape}
        self._places: dict[str, Mapping[int, Place]] = {}
        loader = jinja2.FunctionLoader(self._imported)
        self._html = Sandbox(autoescape=True, loader=loader, filters=template_filters({"_link": _html_link}))
        self._text = Sandbox(autoescape=False, loader=loader, filters=template_filters({"_link": _text_link}))

    def pieces(self, path: str) -> list[Piece]:
        """Return the resolved pieces of a file. Raises InputError like `sources.resolved`."""
        pieces = resolved(self._files, path)
        for piece in pieces:
            imported = reference(piece)
            if imported is not None:
                text_of(self._files, imported, piece.place)
        return pieces

    def markup(self, path: str, source: Source) -> Renderer:
        """Compile HTML: values are escaped."""
        return self._compiled(self._html, path, source)

    def text(self, path: str, source: Source, known_as: str = "") -> Renderer:
        """Compile text, a subject or an SMS: values stand as they are.

        Args:
            path: The file.
            source: Its source.
            known_as: A name of its own, where the source is derived from a file compiled before.
        """
        return self._compiled(self._text, known_as or path, source)

    def _compiled(self, environment: Sandbox, path: str, source: Source) -> Renderer:
        self._places[path] = source.places
        try:
            tree = environment.parse(source.text, path)
            problems = list(_unknown_names(tree, self._shape, source.places, path))
            code = environment.compile(source.text, path, path)
        except jinja2.TemplateSyntaxError as error:
            raise refused(place_near(source.places, error.lineno, path), str(error.message)) from error
        except RecursionError as error:
            raise refused(Place(path, 1), "is nested too deeply") from error
        if problems:
            raise InputError(problems)
        for piece_path in _imports(tree):
            self._check_import(environment, piece_path)
        template = Template.from_code(environment, code, dict(environment.globals))
        return Renderer(template, environment, source.text, self._places, path)

    def _check_import(self, environment: Sandbox, path: str) -> None:
        try:
            environment.get_template(path)
        except jinja2.TemplateSyntaxError as error:
            where = place_near(self._places.get(path, {}), error.lineno, path)
            raise refused(where, str(error.message)) from error

    def _imported(self, path: str) -> str:
        pieces = pieces_of(path, text_of(self._files, path, Place(path, 1)))
        if path.endswith(".html"):
            fragment = markup.fragment(pieces, self._images)
            self.shown |= fragment.aside.shown
            source = markup.with_constructs(fragment)
        else:
            source = markup.plain(pieces)
        self._places[path] = source.places
        return source.text


def _html_link(value: Any) -> Markup:
    """Return what stands for a link whose address a template made; the value comes escaped."""
    rendering = RENDERING.get()
    url = html.unescape(str(value))
    return escape(rendering.link(url) if rendering else url)


def _text_link(value: Any) -> str:
    rendering = RENDERING.get()
    return rendering.link(str(value)) if rendering else str(value)


def referenced_files(files: Mapping[str, str], path: str) -> Iterator[tuple[str, Place, bool]]:
    """Yield every file that one names: its path, where, and whether it may be missing. Raises InputError."""
    for piece in pieces_of(path, text_of(files, path, Place(path, 1))):
        name = reference(piece)
        if name is not None:
            yield name, piece.place, piece.words[1:3] == ("ignore", "missing")


def _imports(tree: nodes.Template) -> Iterator[str]:
    sources = [node.template for node in tree.find_all(nodes.Import)]
    sources += [node.template for node in tree.find_all(nodes.FromImport)]
    yield from (str(source.value) for source in sources if isinstance(source, nodes.Const))


def _unknown_names(
    tree: nodes.Template, shape: Mapping[str, frozenset[str] | None], places: Mapping[int, Place], path: str
) -> Iterator[Problem]:
    """Yield a problem for each name no message will ever have: misspelt ones fail here, not 20,000 times."""
    own = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    own |= {node.name for node in tree.find_all(nodes.Macro)} | set(_imported_names(tree))
    for name in tree.find_all(nodes.Name):
        if name.ctx == "load" and name.name not in shape and not _is_own(name.name, own):
            nested = [f"{first}.{inner}" for first, known in shape.items() if known for inner in known]
            near = [full for full in nested if full.endswith(f".{name.name}")] or [*shape, *nested]
            advice = did_you_mean(name.name, near)
            yield problem_at(place_near(places, name.lineno, path), f"{name.name!r} is undefined", advice)
    # Not so with `default`: a misspelt `contact.firstname|default("customer")` would greet everybody as customer.
    forgiven = {id(node.node) for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined")}
    for get in tree.find_all(nodes.Getattr):
        if isinstance(get.node, nodes.Name) and get.node.name not in own and id(get) not in forgiven:
            known = shape.get(get.node.name)
            if known is not None and get.attr not in known and get.attr not in ("get", "items", "keys", "values"):
                message = f"'{get.node.name}.{get.attr}' is undefined"
                yield problem_at(place_near(places, get.lineno, path), message, did_you_mean(get.attr, known))


def _is_own(name: str, stored: set[str]) -> bool:
    return name in stored or name in ("loop", "caller", "varargs", "kwargs", "range") or name.startswith("_link")


def _imported_names(tree: nodes.Template) -> Iterator[str]:
    yield from (node.target for node in tree.find_all(nodes.Import))
    for node in tree.find_all(nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in node.names)
