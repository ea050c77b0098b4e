"""What can be wrong with a template, for its author at preparation or for one message while it is composed."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.errors import CarillonError, InputError, Problem

_MOST_OF_A_REASON = 400
SHOWN_UNDER = "templates/"
"""How problems name a file: as the workspace's folder does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a piece of a template was written; lines count from 1."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{SHOWN_UNDER}{self.path}:{self.line}"


class TemplateProblem(CarillonError):
    """This one message cannot be composed: its data and its template do not fit. Others are not affected."""


def one_line(reason: str) -> str:
    """Return a reason so that it can be stored and printed: a line of at most 400 characters, none of them harmful."""
    shown = reason if len(reason) <= _MOST_OF_A_REASON else f"{reason[: _MOST_OF_A_REASON - 1]}…"
    if shown.isprintable():
        return shown
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in shown)


def refused(place: Place, message: str, hint: str = "") -> InputError:
    """Return the error of one thing wrong in a template file, found before anything is sent."""
    return InputError([problem_at(place, message, hint)])


def problem_at(place: Place, message: str, hint: str = "") -> Problem:
    """Return one problem at a place of a template file."""
    return Problem(path=SHOWN_UNDER + place.path, line=place.line, column=1, message=message, hint=hint)
