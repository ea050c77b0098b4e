"""Compiling templates to see whether they are right, in every language they have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from kernel.errors import InputError, Problem
from kernel.vocabulary import Channel
from templates.enclosures import is_enclosure
from templates.files import email_template, sms_template
from templates.preparation import prepare_email
from templates.sms import prepare_sms


def check_template(files: Mapping[str, str], name: str, channel: Channel) -> None:
    """Compile a template in every language it has.

    Raises:
        InputError: syntax, names no message has, links no message may carry.
    """
    problems: dict[Problem, None] = {}
    for language in languages_of(files, name, channel):
        try:
            if channel is Channel.SMS:
                prepare_sms(sms_template(files, name, language))
            else:
                prepare_email(email_template(files, name, language))
        except InputError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise InputError(problems)


def languages_of(files: Mapping[str, str], name: str, channel: Channel) -> list[str]:
    """Return the languages a template has files for; "" stands for the files outside any language's."""
    found = {""}
    for path in map(PurePosixPath, files):
        if channel is Channel.SMS and path.name.startswith(f"{name}.") and len(path.parts) == 1:
            found.add(path.name.removeprefix(f"{name}.").removesuffix("txt").rstrip("."))
        elif (
            channel is Channel.EMAIL and len(path.parts) == 3 and path.parts[0] == name and not is_enclosure(str(path))
        ):
            found.add(path.parts[1])
    return sorted(found)
