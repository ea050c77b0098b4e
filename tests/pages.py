"""Pages of the documentation, played: their commands are typed, and what they show of the output is compared."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

_NUMBER = r"\d[\d,]*\.?\d*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Commands of a page, as typed, and what the page shows of the output of the last; "" where it shows nothing.

    A line that holds "…" alone stands for any number of lines.
    """

    commands: tuple[str, ...]
    shown: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of commands, each with the block of text that follows it."""
    found = re.findall(r"(?ms)^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", page)
    return [Block(commands=tuple(typed.strip().splitlines()), shown=shown) for typed, shown in found]


def prose(page: str) -> str:
    """Return a page without its blocks of commands, outputs and files, on one line."""
    return " ".join(re.sub(r"(?ms)^```.*?^```", "", page).split())


def typed(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type a command in a folder, where this environment's Carillon and Python are found, and no database is named."""
    known = {**os.environ, "COLUMNS": "120", **environment}
    known["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{known['PATH']}"
    known.pop("CARILLON_DATABASE_URL", None)
    return subprocess.run(["bash", "-c", command], cwd=folder, env=known, capture_output=True, text=True, check=False)


def difference(shown: str, came: str, *, fitted: bool) -> str:
    """Return where an output differs from what a page shows of it; "" where it does not.

    Only words count: neither frames of tables nor widths nor line breaks. Of what is `fitted` the last digits may
    differ, as they do between two machines.
    """
    left = _words(came)
    pieces = [_words(piece) for piece in re.split(r"(?m)^…\n", shown)]
    for position, wanted in enumerate(pieces):
        starts = range(len(left) - len(wanted) + 1) if position else range(1)
        start = next((at for at in starts if _same(wanted, left[at : at + len(wanted)], fitted=fitted)), None)
        if start is None:
            return f"the page shows {' '.join(wanted)!r}, and this came: {' '.join(left)!r}"
        left = left[start + len(wanted) :]
    return f"the page does not show {' '.join(left)!r}" if left and pieces[-1] else ""


def _words(text: str) -> list[str]:
    return [word for word in text.split() if not re.fullmatch("[─-╿]+", word)]


def _same(wanted: list[str], came: list[str], *, fitted: bool) -> bool:
    if len(wanted) != len(came):
        return False
    return all(one == two or (fitted and _near(one, two)) for one, two in zip(wanted, came, strict=True))


def _near(one: str, two: str) -> bool:
    if re.sub(_NUMBER, "#", one) != re.sub(_NUMBER, "#", two):
        return False
    numbers = [[float(number.replace(",", "")) for number in re.findall(_NUMBER, word)] for word in (one, two)]
    return numbers[0] == pytest.approx(numbers[1], rel=2e-3)
