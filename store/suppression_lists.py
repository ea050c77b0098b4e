"""Lists of suppressions for people and other systems: what stands, one address's history, files to bring in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from kernel.errors import InputError, Problem
from kernel.vocabulary import Channel, SuppressionReason
from store.ingest.addresses import normal_email, normal_phone
from store.message_facts import comparable_address
from store.standing import standing
from store.suppressions import COUNTED, signs_and_bounces, suppress
from store.tables import suppression_words, suppressions

COLUMNS = ("channel", "address", "reason", "at", "expires_at", "detail")
_MOST_BYTES = 200 * 1024 * 1024
_TOGETHER = 500
"""Addresses asked about in one question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of a list. `reason` is None where the line names one that only counting bounces makes."""

    channel: Channel
    address: str
    reason: SuppressionReason | None
    at: datetime
    expires_at: datetime | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What bringing in a list changed, in addresses.

    `already` were suppressed before, `ended` are not suppressed: their time is over, or a later sign of life or lift
    outweighs the list. `left_out` are lines whose reason only counting bounces brings about.
    """

    added: int
    already: int
    ended: int
    left_out: int


def wire_form(channel: Channel, address: str) -> str | None:
    """Return an address in the one spelling suppressions are keyed by, or None where it is none of the channel."""
    found = normal_email(address) if channel is Channel.EMAIL else normal_phone(address, None)
    return comparable_address(channel, found) if found else None


def channel_of(address: str) -> Channel:
    """Return the channel an address can only belong to."""
    return Channel.EMAIL if "@" in address else Channel.SMS


def standing_rows(
    connection: Connection,
    *,
    now: datetime,
    channel: Channel | None = None,
    reason: SuppressionReason | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Return what stands at `now`, the latest first, each with its age in days."""
    query = select(suppressions).where(standing(now)).order_by(suppressions.c.at.desc(), suppressions.c.address)
    if channel:
        query = query.where(suppressions.c.channel == channel)
    if reason:
        query = query.where(suppressions.c.reason == reason)
    rows = connection.execute(query.limit(limit)).mappings()
    return [{**_told(row), "age_days": (now - row["at"]).days} for row in rows]


def history_of(connection: Connection, *, channel: Channel, address: str, now: datetime) -> dict[str, Any]:
    """Return what stands for one address, and everything that was said or happened that bears on it, oldest first."""
    address = comparable_address(channel, address)
    here = (suppressions.c.channel == channel, suppressions.c.address == address)
    rows = connection.execute(select(suppressions).where(*here, standing(now))).mappings().all()
    words = connection.execute(
        select(suppression_words).where(suppression_words.c.channel == channel, suppression_words.c.address == address)
    )
    said = [
        {
            "at": word.at,
            "what": word.action,
            "reason": word.reason,
            "by": word.said_by or (f"message {word.message_id}" if word.message_id else ""),
            "until": word.expires_at,
            "detail": word.detail,
        }
        for word in words
    ]
    happened = [
        {"at": at, "what": kind, "reason": None, "by": f"message {message_id}", "until": None, "detail": detail}
        for at, kind, message_id, detail in signs_and_bounces(connection, channel, address)
    ]
    return {
        "channel": channel.value,
        "address": address,
        "standing": [_told(row) for row in rows],
        "history": sorted([*said, *happened], key=lambda line: line["at"]),
    }


def _told(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in (*COLUMNS, "message_id")}


def bring_in(connection: Connection, lines: Sequence[Listed], *, by: str, now: datetime) -> Brought:
    """Suppress every address of a list, and return what that changed.

    Args:
        connection: In a writing transaction.
        lines: As `read_list` gives them.
        by: Who says so.
        now: What stands at this instant counts as suppressed.
    """
    taken = [line for line in lines if line.reason is not None]
    before = _standing_of(connection, taken, now)
    for line in taken:
        suppress(
            connection,
            channel=line.channel,
            address=line.address,
            reason=line.reason or SuppressionReason.MANUAL,
            at=line.at,
            until=line.expires_at,
            detail=line.detail,
            by=by,
        )
    after = _standing_of(connection, taken, now)
    listed = {(line.channel.value, line.address) for line in taken}
    return Brought(
        added=len(after - before), already=len(before), ended=len(listed - after), left_out=len(lines) - len(taken)
    )


def _standing_of(connection: Connection, lines: Sequence[Listed], now: datetime) -> set[tuple[str, str]]:
    """Return channels and addresses of the lines that are suppressed at `now`."""
    found: set[tuple[str, str]] = set()
    for channel in Channel:
        addresses = sorted({line.address for line in lines if line.channel is channel})
        for start in range(0, len(addresses), _TOGETHER):
            query = select(suppressions.c.address).where(
                suppressions.c.channel == channel,
                suppressions.c.address.in_(addresses[start : start + _TOGETHER]),
                standing(now),
            )
            found |= {(channel.value, address) for address in connection.execute(query).scalars()}
    return found


def read_list(path: Path, *, now: datetime) -> tuple[list[Listed], list[Problem]]:
    """Return the lines of a CSV file with a heading, and what was not understood of others.

    The columns are `address`, and any of the others an export has.

    An apostrophe before an address, as spreadsheets need it, is taken off. Without `channel` the address tells; without
    `reason` it is `manual`; without `at` it is `now`, without `expires_at` never.

    Raises:
        InputError: the file cannot be read, or its heading is wrong.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError([_problem(path, 0, f"the file is larger than {_MOST_BYTES:,} bytes", "split it")])
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError([_problem(path, 0, f"it cannot be read: {error}", "give a CSV file in UTF-8")]) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    heading = [(name or "").strip().lower() for name in reader.fieldnames or []]
    reader.fieldnames = heading
    problems = [
        _problem(path, 1, f"unknown column {name!r}", f"delete it, or call it {', '.join(COLUMNS)}")
        for name in heading
        if name not in (*COLUMNS, "age_days", "message_id")
    ]
    if "address" not in heading:
        problems.append(_problem(path, 1, "there is no column `address`", "the first line names the columns"))
    if problems:
        raise InputError(problems)
    return list(_lines(path, reader, now, problems)), problems


def _lines(path: Path, reader: csv.DictReader[str], now: datetime, problems: list[Problem]) -> Iterator[Listed]:
    try:
        for row in reader:
            cells = {name: (value or "").strip().removeprefix("'") for name, value in row.items() if name}
            if not any(cells.values()):
                continue
            try:
                yield _line(cells, now)
            except ValueError as error:
                problems.append(_problem(path, reader.line_num, str(error), ""))
    except csv.Error as error:
        problems.append(_problem(path, reader.line_num, str(error), "is it CSV?"))


def _line(cells: dict[str, str], now: datetime) -> Listed:
    given = cells["address"]
    channel = Channel(_one_of(Channel, "channel", cells) or channel_of(given))
    address = wire_form(channel, given)
    if address is None:
        kinds = {Channel.EMAIL: "no e-mail address", Channel.SMS: "no number with its country, as +447900000001"}
        both = "neither an e-mail address nor a number with its country, as +447900000001"
        raise ValueError(f"{given!r} is {kinds[channel] if cells.get('channel') else both}" if given else "no address")
    reason = SuppressionReason(_one_of(SuppressionReason, "reason", cells) or SuppressionReason.MANUAL)
    expires = cells.get("expires_at")
    return Listed(
        channel=channel,
        address=address,
        reason=None if reason in COUNTED.values() else reason,
        at=_instant(cells["at"]) if cells.get("at") else now,
        expires_at=_instant(expires) if expires else None,
        detail=cells.get("detail", ""),
    )


def _one_of(words: type[StrEnum], name: str, cells: dict[str, str]) -> str:
    """Return the cell's word, small; "" where there is none."""
    word = cells.get(name, "").lower()
    if word and word not in set(words):
        raise ValueError(f"{cells[name]!r} is no {name}; write {', '.join(words)} or nothing")
    return word


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date; write it as 2026-03-02 or 2026-03-02T10:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _problem(path: Path, line: int, message: str, hint: str) -> Problem:
    return Problem(path=str(path), line=line, column=1, message=message, hint=hint)
