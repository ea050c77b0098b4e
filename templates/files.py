"""Which files make a template, and which of them one language uses.

An e-mail is a folder: `winback/subject.txt`, `winback/body.html` or `body.mjml`, and `winback/body.txt` where the text
is not to be derived. A language has a folder of its own in it (`winback/de/…`); a file it lacks is taken from the
folder itself. What lies in `winback/images/` and `winback/attachments/` comes with it. An SMS is one file:
`winback-sms.txt`, in German `winback-sms.de.txt`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kernel.documents import did_you_mean
from kernel.errors import InputError, Problem
from kernel.vocabulary import Channel
from templates.enclosures import ATTACHMENTS, IMAGES, enclosed, enclosure_files
from templates.prepared import referenced_files
from templates.problems import SHOWN_UNDER, Place, refused
from templates.sources import MAX_FILE_CHARACTERS, shipped_files

_TAG = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")
_ENDINGS = (".txt", ".html", ".mjml")
_BODIES = ("body.mjml", "body.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmailTemplate:
    """The files of an e-mail in one language, by path; `text` is None where the text is derived from the body."""

    name: str
    language: str
    files: Mapping[str, str]
    subject: str
    body: str
    text: str | None
    images: Mapping[str, bytes] = field(default_factory=dict)
    """By the file name that follows "images/" in the HTML."""
    attachments: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsTemplate:
    """The file of an SMS in one language, by path."""

    name: str
    language: str
    files: Mapping[str, str]
    text: str


def email_template(files: Mapping[str, str], name: str, language: str) -> EmailTemplate:
    """Return an e-mail's files for a language; what the language lacks comes from the template's own folder.

    Args:
        files: Texts by path relative to the workspace's templates/, as `template_files` gives them.
        name: The template's folder.
        language: BCP 47; "de-AT" looks into de-AT/, then de/. What is no language tag counts as English.

    Raises:
        InputError: no subject or no body.
    """
    language = _tidy(language)
    folders = [*(f"{name}/{tag}" for tag in _tags(language)), name]
    subject = _first(files, [f"{folder}/subject.txt" for folder in folders])
    body = _first(files, [f"{folder}/{file}" for folder in folders for file in _BODIES])
    problems = []
    if subject is None:
        problems.append(_missing(f"{name}/subject.txt", "write the subject line into it"))
    if body is None:
        problems.append(_missing(f"{name}/body.html", "write body.html or body.mjml"))
    if problems or subject is None or body is None:
        raise InputError(problems)
    # A text in another language than the body's would not be the same message.
    text = f"{body.rsplit('/', 1)[0]}/body.txt"
    return EmailTemplate(
        name=name,
        language=language,
        files=files,
        subject=subject,
        body=body,
        text=text if text in files else None,
        images=enclosed(files, folders, IMAGES),
        attachments=enclosed(files, folders, ATTACHMENTS),
    )


def sms_template(files: Mapping[str, str], name: str, language: str) -> SmsTemplate:
    """Return an SMS's file for a language. Arguments and errors as of `email_template`."""
    language = _tidy(language)
    path = _first(files, [*(f"{name}.{tag}.txt" for tag in _tags(language)), f"{name}.txt"])
    if path is None:
        raise InputError([_missing(f"{name}.txt", "write the text of the SMS into it")])
    return SmsTemplate(name=name, language=language, files=files, text=path)


def template_files(root: Path, name: str, channel: Channel) -> dict[str, str]:
    """Return every file a step uses, by path relative to the templates folder, for pinning.

    Those are the template's own files in all languages and whatever they extend, include or import, the shipped base
    templates among them: a pinned run looks the same after an upgrade. Images and attachments come in base64.

    Args:
        root: The workspace's templates folder.
        name: The template's name, as a campaign's step gives it.
        channel: E-mail templates are folders, SMS templates files.

    Raises:
        InputError: the template or a file it names is missing, unreadable or outside the folder.
    """
    own = list(_own_files(root, name, channel))
    if not own:
        wanted = f"{name}/subject.txt" if channel is Channel.EMAIL else f"{name}.txt"
        raise InputError([_missing(wanted, did_you_mean(name, template_names(root, channel)))])
    files: dict[str, str] = {}
    waiting = [(path, Place(path, 1), False) for path in own]
    while waiting:
        path, wanted_at, may_miss = waiting.pop()
        if path in files or (may_miss and not _exists(root, path)):
            continue
        files[path] = _read(root, path, wanted_at)
        waiting.extend(referenced_files(files, path))
    if channel is Channel.EMAIL:
        files.update(enclosure_files(root, name))
    return dict(sorted(files.items()))


def template_names(root: Path, channel: Channel) -> list[str]:
    """Return the names of the templates of a channel in a workspace's templates folder."""
    if channel is Channel.EMAIL:
        return sorted(item.parent.name for item in root.glob("*/subject.txt"))
    return sorted({item.name.split(".")[0] for item in root.glob("*.txt")})


def _own_files(root: Path, name: str, channel: Channel) -> Iterable[str]:
    if channel is Channel.SMS:
        found = [root / f"{name}.txt", *root.glob(f"{name}.*.txt")]
    else:
        wanted = ("subject.txt", "body.txt", *_BODIES)
        found = [item for file in wanted for item in (root / name / file, *(root / name).glob(f"*/{file}"))]
    return sorted({item.relative_to(root).as_posix() for item in found if item.is_file()})


def _exists(root: Path, path: str) -> bool:
    return (root / path).is_file() or path in shipped_files()


def _read(root: Path, path: str, wanted_at: Place) -> str:
    file = root / path
    if not file.is_file() and path in shipped_files():
        return shipped_files()[path]
    if ".." in PurePosixPath(path).parts or not file.resolve().is_relative_to(root.resolve()):
        raise refused(wanted_at, f"{path!r} lies outside the templates folder")
    if not path.endswith(_ENDINGS) or not file.is_file():
        known = [item.relative_to(root).as_posix() for item in root.rglob("*") if item.suffix in _ENDINGS]
        raise refused(wanted_at, f"there is no template file {path!r}", did_you_mean(path, [*known, *shipped_files()]))
    try:
        raw = file.read_bytes()
        if len(raw) > 4 * MAX_FILE_CHARACTERS:
            raise refused(Place(path, 1), "is too large for a template")
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise refused(Place(path, 1), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise refused(Place(path, 1), f"is not UTF-8 (byte {error.start})", "save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _tidy(language: str) -> str:
    """Return the language as a tag; what imported data holds instead of one counts as English."""
    tag = language.strip().replace("_", "-")
    return tag if _TAG.fullmatch(tag) else "en"


def _tags(language: str) -> list[str]:
    """Return the folders to look into: the exact tag, then its primary language in small letters."""
    return [language, language.split("-", maxsplit=1)[0].lower()]


def _first(files: Mapping[str, str], paths: Iterable[str]) -> str | None:
    return next((path for path in paths if path in files), None)


def _missing(path: str, hint: str) -> Problem:
    return Problem(path=SHOWN_UNDER + path, line=0, column=0, message="is missing", hint=hint)
