"""Reading Postfix's mail log: which of our messages it took over, how often, and what became of them.

Postfix has taken a message over when its queue manager speaks of it (`queue active`) or a delivery agent does
(`status=`); `cleanup` alone names a Message-ID while the text is still arriving, which proves nothing.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

from kernel.errors import ConfigError

_LINE = re.compile(
    r"(?P<stamp>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) \S+ "
    r"\S*/(?P<daemon>[\w-]+)\[\d+\]: (?P<queue_id>[0-9A-F]{6,}|[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{10,}): (?P<words>.*)"
)
"""Short queue ids are hexadecimal, long ones (enable_long_queue_ids) are of 52 letters and digits without vowels."""
_STATUS = re.compile(r"\bstatus=(\w+) \((.*)\)")
_PASSED_ON = re.compile(r"\bqueued as ([0-9A-Za-z]{6,})")
_STAMP = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+")
_TELLING = ("message-id=<m", "status=", "queue active")


@dataclass(slots=True)
class Logged:
    """One of our messages as the log knows it. `status` is the latest told, "" where none was; `words` if not sent."""

    at: datetime
    queue_ids: list[str]
    status: str = ""
    words: str = ""


@dataclass(slots=True)
class MailLog:
    """What a log says: of our messages by number, and the time it covers."""

    mails: dict[int, Logged] = field(default_factory=dict)
    lines: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None

    def covers(self, begins: datetime, ends: datetime) -> bool:
        """Tell whether the log reaches from before `begins` to after `ends`."""
        return (
            self.first_at is not None and self.last_at is not None and self.first_at <= begins <= ends <= self.last_at
        )


def read_mail_logs(paths: Iterable[Path], installation: str, *, now: datetime) -> MailLog:
    """Read log files, the oldest first, plain or gzipped.

    Args:
        paths: The files.
        installation: This database's name in its Message-IDs.
        now: Lines without a year are taken to be of the year before it, in this machine's time zone.

    Raises:
        ConfigError: a file cannot be read, or holds no line of Postfix's.
    """
    found = MailLog()
    reader = _Reader(found, installation, now)
    for path in paths:
        before = found.lines
        try:
            with _open(path) as lines:
                reader.read(lines)
        except (OSError, EOFError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        if found.lines == before:
            raise ConfigError(f"{path} holds no line that begins with a time, as Postfix's mail.log does")
    reader.close()
    return found


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", errors="replace")
    return path.open(encoding="utf-8", errors="replace")


class _Reader:
    """Follows queue ids from the Message-ID to the status. Knows only those that are ours."""

    def __init__(self, found: MailLog, installation: str, now: datetime) -> None:
        self._found = found
        self._message_id = re.compile(rf"message-id=<m(\d+)\.{re.escape(installation)}@")
        self._stamps = _Stamps(now)
        self._arriving: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._passed_on: set[str] = set()

    def read(self, lines: Iterable[str]) -> None:
        first = last = ""
        for line in lines:
            if not _STAMP.match(line):
                continue
            self._found.lines += 1
            last = line
            first = first or line
            if any(mark in line for mark in _TELLING):
                self._telling(line)
        for edge in (first, last):
            if edge:
                self._spread(self._stamps.read(_STAMP.match(edge)[0]))  # type: ignore[index]

    def close(self) -> None:
        """Leave out what one Postfix handed to itself (through a content filter): that is one acceptance, not two."""
        for queue_id in self._passed_on:
            message_id = self._taken.get(queue_id)
            if message_id is not None and len(self._found.mails[message_id].queue_ids) > 1:
                self._found.mails[message_id].queue_ids.remove(queue_id)

    def _telling(self, line: str) -> None:
        matched = _LINE.match(line)
        if matched is None:
            return
        queue_id, words = matched["queue_id"], matched["words"]
        ours = self._message_id.match(words)
        if ours is not None:
            self._arriving[queue_id] = int(ours[1])
            return
        if queue_id not in self._arriving and queue_id not in self._taken:
            return
        status = _STATUS.search(words)
        if status is not None or words.endswith("(queue active)"):
            self._take(queue_id, self._stamps.read(matched["stamp"]))
        if status is not None:
            self._tell(queue_id, status[1], status[2])

    def _take(self, queue_id: str, at: datetime) -> None:
        if queue_id in self._taken:
            return
        message_id = self._arriving.pop(queue_id)
        self._taken[queue_id] = message_id
        known = self._found.mails.get(message_id)
        if known is None:
            self._found.mails[message_id] = Logged(at=at, queue_ids=[queue_id])
        else:
            known.queue_ids.append(queue_id)

    def _tell(self, queue_id: str, status: str, words: str) -> None:
        logged = self._found.mails[self._taken[queue_id]]
        # A million deliveries say the same with another number each; only what went wrong is worth the memory.
        logged.status, logged.words = sys.intern(status), "" if status == "sent" else words
        passed_on = _PASSED_ON.search(words)
        if passed_on is not None and (passed_on[1] in self._arriving or passed_on[1] in self._taken):
            self._passed_on.add(passed_on[1])

    def _spread(self, at: datetime) -> None:
        found = self._found
        found.first_at = at if found.first_at is None else min(found.first_at, at)
        found.last_at = at if found.last_at is None else max(found.last_at, at)


class _Stamps:
    """Reads the two forms of time; the last one read is remembered, for a busy second has many lines."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._last: tuple[str, datetime] = ("", now)

    def read(self, stamp: str) -> datetime:
        if stamp != self._last[0]:
            self._last = (stamp, self._read(stamp))
        return self._last[1]

    def _read(self, stamp: str) -> datetime:
        if stamp[0].isdigit():
            return datetime.fromisoformat(stamp).astimezone(UTC)
        # "Nov 26 15:46:40" has neither year nor zone: syslog writes local time.
        told = self._in_year(self._now.year, stamp)
        return told if told <= self._now + timedelta(days=1) else self._in_year(self._now.year - 1, stamp)

    @staticmethod
    def _in_year(year: int, stamp: str) -> datetime:
        return datetime.strptime(f"{year} {stamp}", "%Y %b %d %H:%M:%S").astimezone(UTC)
