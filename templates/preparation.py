"""An e-mail template compiled and checked, before a message or a sender is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from kernel.errors import InputError, Problem
from templates import markup
from templates.context import EMAIL_SHAPE
from templates.enclosures import IMAGES, Enclosure, attachment, image
from templates.files import EmailTemplate
from templates.plaintext import text_from_html
from templates.prepared import Renderer, Workshop
from templates.problems import refused
from templates.sources import Piece

_DEFINITIONS = ("import", "from", "macro", "call")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedEmail:
    """The compiled parts of an e-mail template, and the fixed links of its HTML by the variable of each."""

    subject: Renderer
    html: Renderer
    text: Renderer
    links: Mapping[str, str]
    derived: bool
    """Whether the text was derived from the HTML: then empty lines that statements leave are drawn together."""
    images: tuple[Enclosure, ...] = ()
    """Those the HTML shows."""
    attachments: tuple[Enclosure, ...] = ()


def prepare_email(template: EmailTemplate, domain: str = "localhost") -> PreparedEmail:
    """Compile an e-mail template and check all that can be checked without a message.

    Args:
        template: Its files.
        domain: The sender's, which stands in content ids.

    Raises:
        InputError: syntax, names no message has, links no message may carry, MJML or styles that do not parse.
    """
    images = {f"{IMAGES}/{name}": image(name, content, domain) for name, content in sorted(template.images.items())}
    content_ids = {source: made.content_id for source, made in images.items()}
    workshop = Workshop(template.files, EMAIL_SHAPE, content_ids)
    problems: list[Problem] = []
    with _gathering(problems):
        subject = _plain(workshop, template.subject)
    with _gathering(problems):
        pieces = workshop.pieces(template.body)
        document = markup.document(pieces, path=template.body, language=template.language, images=content_ids)
        html = workshop.markup(template.body, markup.with_constructs(document))
        if template.text is None:
            text = _derived(workshop, template.body, pieces, document)
    if template.text is not None:
        with _gathering(problems):
            text = _plain(workshop, template.text)
    if problems:
        raise InputError(problems)
    links = {name: url for url, name in document.aside.links.items()}
    shown = document.aside.shown | workshop.shown
    return PreparedEmail(
        subject=subject,
        html=html,
        text=text,
        links=links,
        derived=template.text is None,
        images=tuple(made for source, made in images.items() if source in shown),
        attachments=tuple(attachment(name, content) for name, content in sorted(template.attachments.items())),
    )


@contextmanager
def _gathering(problems: list[Problem]) -> Iterator[None]:
    """Keep what is wrong with one file for later, so that the others are looked at too."""
    try:
        yield
    except InputError as error:
        problems.extend(error.problems)


def _plain(workshop: Workshop, path: str) -> Renderer:
    return workshop.text(path, markup.plain(workshop.pieces(path)))


def _derived(workshop: Workshop, body: str, pieces: list[Piece], document: markup.Document) -> Renderer:
    _check_derivable(pieces, body)
    text = markup.Document(text=text_from_html(document.text, document.aside), aside=document.aside)
    return workshop.text(body, markup.with_constructs(text), known_as=f"{body} (as text)")


def _check_derivable(pieces: list[Piece], body: str) -> None:
    macro = next((piece for piece in pieces if piece.keyword in _DEFINITIONS), None)
    if macro is not None:
        raise refused(macro.place, "no text can be derived from a body with macros", f"write a body.txt beside {body}")
