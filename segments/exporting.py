"""Lists for advertising platforms: the contacts of a segment, normalised and hashed, with their consent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, Select, and_, delete, func, select

from kernel.errors import ConfigError
from kernel.vocabulary import Channel, ConsentStatus, SkipReason, Subject
from segments.compiler import members
from segments.definitions import Definition
from segments.export_files import check_target, listed_digests, removals_path, write_csv_files
from segments.export_layouts import generic, google_customer_match, meta
from segments.export_layouts.layout import Layout, Person, plain_email, plain_phone, sha256_hex
from store.engine import reading, writing
from store.message_facts import comparable_address
from store.sql import in_slices, insert_into
from store.standing import standing
from store.tables import accounts, consents, contacts, exported_addresses, suppressions

LAYOUTS: dict[str, Layout] = {one.LAYOUT.name: one.LAYOUT for one in (google_customer_match, meta, generic)}
POSTAL_CODE_KEYS = ("postal_code", "postcode", "zip")
"""Keys of `attributes` that may hold a postal code: the contact's own first, then its account's."""
_CHANNELS = {"email": Channel.EMAIL, "phone": Channel.SMS}
_CHUNK = 5_000
_ROWS_PER_COMMIT = 20_000


class ConsentPolicy(StrEnum):
    """Whose addresses may be exported."""

    EACH = "each"
    STRICT = "strict"


class Entry(NamedTuple):
    """A line of the file: the digests of the addresses, "" where one is left out, and the line's cells."""

    digests: Mapping[str, str]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of the segment: every contact is exported or left out for one reason, and so is every address.

    `addresses` maps email and phone to numbers by `exported` or reason. `childless` counts accounts without a contact,
    `unreachable` those of which no contact is in the file; both are 0 for a segment of contacts.
    """

    subjects: int
    contacts: int
    exported: int
    left_out: Mapping[str, int]
    addresses: Mapping[str, Mapping[str, int]]
    childless: int = 0
    unreachable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What an export wrote, or would write: the file's lines, and the digests the platform should forget."""

    name: str
    subject: Subject
    layout: str
    consent: ConsentPolicy
    as_of: datetime
    file: Path
    removals_file: Path
    written: bool
    tally: Tally
    added: int
    removals: int

    def as_json(self) -> dict[str, Any]:
        """Return the answer under its stable keys."""
        return {
            "name": self.name,
            "subject": self.subject,
            "layout": self.layout,
            "consent": self.consent,
            "as_of": self.as_of,
            "file": str(self.file),
            "removals_file": str(self.removals_file),
            "written": self.written,
            "members": self.tally.subjects,
            "contacts": self.tally.contacts,
            "exported": self.tally.exported,
            "left_out": dict(self.tally.left_out),
            "addresses": {kind: dict(numbers) for kind, numbers in self.tally.addresses.items()},
            "accounts_without_contacts": self.tally.childless,
            "accounts_without_address": self.tally.unreachable,
            "new_addresses": self.added,
            "removals": self.removals,
        }


@dataclass(slots=True, kw_only=True)
class _Count:
    left_out: Counter[str] = field(default_factory=Counter)
    addresses: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in _CHANNELS})
    contacts: int = 0
    met: set[int] = field(default_factory=set)
    reached: set[int] = field(default_factory=set)


def export_segment(
    engine: Engine,
    definitions: Mapping[str, Definition],
    name: str,
    *,
    layout: str,
    out: Path,
    now: datetime,
    currency: str,
    consent: ConsentPolicy = ConsentPolicy.EACH,
    dry_run: bool = False,
    removals_done: bool = False,
    root: Path | None = None,
) -> Export:
    """Write the segment's contacts of now to a file in a platform's layout, and whom to remove to a second one.

    Both files stand complete or not at all, and only then the database learns what the platform is going to hold. An
    address that an earlier export held and this one does not is listed as a removal in every export until
    `removals_done` says that the platform has taken the list: an export may be repeated without losing one.

    Args:
        engine: The database.
        definitions: At least the segment and all it refers to.
        name: Which segment; of accounts, their contacts are exported.
        layout: A name among LAYOUTS.
        out: The file; its folder exists. The removals stand beside it, see `removals_path`. Only an earlier export is
            written over.
        now: Aware instant as of which membership is computed.
        currency: The workspace's.
        consent: Whose addresses may be exported.
        dry_run: Count only; write nothing.
        removals_done: Forget first what the list of removals written last names.
        root: The workspace, whose own files are never written over.

    Raises:
        ConfigError: an unknown layout, a file not to be written (see `check_target`), or no list of removals
            where `removals_done`.
    """
    chosen = _layout(layout)
    check_target(out, [one.columns for one in LAYOUTS.values()], root=root)
    removals_out = removals_path(out)
    done = listed_digests(removals_out) if removals_done else set()
    with reading(engine) as connection:
        entries, tally = _gathered(
            connection, definitions, name, chosen, now=now, currency=currency, policy=ConsentPolicy(consent)
        )
        held = _held(connection, name, layout)
    current = {digest: kind for entry in entries for kind, digest in entry.digests.items() if digest}
    removals = sorted((kind, digest) for digest, kind in held.items() if digest not in current and digest not in done)
    if not dry_run:
        lines = [chosen.removal(digest, kind) for kind, digest in removals]
        people = [entry.cells for entry in entries]
        write_csv_files({removals_out: (chosen.columns, lines), out: (chosen.columns, people)})
        _record(engine, name, layout, held=held, current=current, forget=done, now=now)
    return Export(
        name=name,
        subject=definitions[name].subject,
        layout=layout,
        consent=ConsentPolicy(consent),
        as_of=now,
        file=out,
        removals_file=removals_out,
        written=not dry_run,
        tally=tally,
        added=sum(digest not in held for digest in current),
        removals=len(removals),
    )


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise ConfigError(f"there is no layout {name!r}; there are {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _gathered(
    connection: Connection,
    definitions: Mapping[str, Definition],
    name: str,
    layout: Layout,
    *,
    now: datetime,
    currency: str,
    policy: ConsentPolicy,
) -> tuple[list[Entry], Tally]:
    """Return the lines in the order of their cells, which tells nothing of the order of our rows, and the tally."""
    chosen = members(definitions, name, as_of=now, currency=currency)
    of_accounts = definitions[name].subject is Subject.ACCOUNT
    count = _Count()
    seen: set[str] = set()
    entries = []
    for rows in connection.execute(_people(chosen, of_accounts)).partitions(_CHUNK):
        suppressed = _suppressed(connection, rows, now)
        for row in rows:
            entry = _entry(row, layout, suppressed, policy, seen, count)
            if entry:
                entries.append(entry)
    entries.sort(key=lambda entry: entry.cells)
    subjects = connection.execute(select(func.count()).select_from(chosen.subquery())).scalar_one()
    tally = Tally(
        subjects=subjects,
        contacts=count.contacts,
        exported=len(entries),
        left_out=dict(sorted(count.left_out.items())),
        addresses={kind: dict(sorted(numbers.items())) for kind, numbers in count.addresses.items()},
        childless=subjects - len(count.met) if of_accounts else 0,
        unreachable=len(count.met - count.reached) if of_accounts else 0,
    )
    return entries, tally


def _people(chosen: Select[int], of_accounts: bool) -> Select[Any]:
    """Return the query of the contacts with their words on both channels, in the order of ids."""
    ids = chosen.subquery()
    key = contacts.c.account_id if of_accounts else contacts.c.id
    source = contacts.join(accounts, accounts.c.id == contacts.c.account_id, isouter=True)
    words = []
    for kind, channel in _CHANNELS.items():
        consent = consents.alias(f"{kind}_consents")
        source = source.join(
            consent, and_(consent.c.contact_id == contacts.c.id, consent.c.channel == channel.value), isouter=True
        )
        words.append(consent.c.status.label(f"{kind}_word"))
    return (
        select(
            contacts.c.account_id,
            contacts.c.email,
            contacts.c.phone,
            contacts.c.first_name,
            contacts.c.last_name,
            contacts.c.attributes,
            accounts.c.attributes.label("account_attributes"),
            accounts.c.country,
            *words,
        )
        .select_from(source)
        .where(key.in_(select(ids.c.id)))
        .order_by(contacts.c.id)
        .execution_options(yield_per=_CHUNK)
    )


def _suppressed(connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> set[tuple[str, str]]:
    """Return the kinds and addresses, in comparable form, that are suppressed for any reason."""
    found = set()
    for kind, channel in _CHANNELS.items():
        keys = {comparable_address(channel, getattr(row, kind)) for row in rows if getattr(row, kind)}
        query = select(suppressions.c.address).where(
            suppressions.c.channel == channel.value, suppressions.c.address.in_(keys), standing(now)
        )
        found |= {(kind, address) for address in connection.execute(query).scalars()}
    return found


def _entry(
    row: Row[Any],
    layout: Layout,
    suppressed: set[tuple[str, str]],
    policy: ConsentPolicy,
    seen: set[str],
    count: _Count,
) -> Entry | None:
    """Return the contact's line, or None where it has none; counts it either way."""
    found = {kind: _digest(row, kind, layout, suppressed) for kind in _CHANNELS}
    veto = _veto(row, suppressed) if policy is ConsentPolicy.STRICT else None
    if veto:
        found = {kind: ("", veto if digest else reason) for kind, (digest, reason) in found.items()}
    digests = {kind: digest for kind, (digest, _) in found.items() if digest}
    if digests and seen.issuperset(digests.values()):
        found = {kind: ("", SkipReason.DUPLICATE_ADDRESS if digest else reason)
                 for kind, (digest, reason) in found.items()}  # fmt: skip
        digests = {}
    count.contacts += 1
    count.met.add(row.account_id)
    for kind, (digest, reason) in found.items():
        count.addresses[kind]["exported" if digest else reason] += 1
    if not digests:
        count.left_out[_reason([reason for _, reason in found.values()])] += 1
        return None
    seen.update(digests.values())
    count.reached.add(row.account_id)
    return Entry(digests, layout.row(digests.get("email", ""), digests.get("phone", ""), _person(row)))


def _digest(row: Row[Any], kind: str, layout: Layout, suppressed: set[tuple[str, str]]) -> tuple[str, str]:
    """Return the digest of one of a contact's addresses and "", or "" and why it is left out."""
    address = getattr(row, kind)
    if not address:
        return "", SkipReason.NO_ADDRESS
    if getattr(row, f"{kind}_word") != ConsentStatus.GRANTED:
        return "", SkipReason.NO_CONSENT
    if (kind, comparable_address(_CHANNELS[kind], address)) in suppressed:
        return "", SkipReason.SUPPRESSED
    plain = plain_email(address) if kind == "email" else plain_phone(address)
    normalised = getattr(layout, kind)(plain) if plain else ""
    if not normalised or normalised.startswith("@"):
        return "", SkipReason.INVALID_ADDRESS
    return sha256_hex(normalised), ""


def _veto(row: Row[Any], suppressed: set[tuple[str, str]]) -> str | None:
    """Return why a contact is left out as a whole: a word taken back, or a suppressed address, on either channel."""
    for kind, channel in _CHANNELS.items():
        address = getattr(row, kind)
        if address and (kind, comparable_address(channel, address)) in suppressed:
            return SkipReason.SUPPRESSED
        if getattr(row, f"{kind}_word") == ConsentStatus.WITHDRAWN:
            return SkipReason.NO_CONSENT
    return None


def _reason(reasons: Sequence[str]) -> str:
    """Return the one reason a contact is left out for: that of the address that came nearest to being exported."""
    order = (
        SkipReason.DUPLICATE_ADDRESS,
        SkipReason.INVALID_ADDRESS,
        SkipReason.SUPPRESSED,
        SkipReason.NO_CONSENT,
        SkipReason.NO_ADDRESS,
    )
    return next(reason.value for reason in order if reason in reasons)


def _person(row: Row[Any]) -> Person:
    return Person(
        first_name=row.first_name or "",
        last_name=row.last_name or "",
        country=row.country or "",
        postal_code=_postal_code(row.attributes) or _postal_code(row.account_attributes),
    )


def _postal_code(attributes: Any) -> str:
    for key in POSTAL_CODE_KEYS:
        value = attributes.get(key) if isinstance(attributes, dict) else None
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return ""


def _held(connection: Connection, name: str, layout: str) -> dict[str, str]:
    table = exported_addresses
    query = select(table.c.digest, table.c.kind).where(table.c.segment == name, table.c.layout == layout)
    return {row.digest: row.kind for row in connection.execute(query)}


def _record(
    engine: Engine,
    name: str,
    layout: str,
    *,
    held: Mapping[str, str],
    current: Mapping[str, str],
    forget: set[str],
    now: datetime,
) -> None:
    """Keep what the platform holds, in short transactions: sending never waits for long."""
    table = exported_addresses
    mine = and_(table.c.segment == name, table.c.layout == layout)
    for some in in_slices(sorted(forget - set(current)), _ROWS_PER_COMMIT):
        with writing(engine) as connection:
            for part in in_slices(some, 1_000):
                connection.execute(delete(table).where(mine, table.c.digest.in_(part)))
    for some_rows in in_slices(_new_rows(name, layout, held, current, now), _ROWS_PER_COMMIT):
        with writing(engine) as connection:
            connection.execute(insert_into(connection, table).on_conflict_do_nothing(), some_rows)


def _new_rows(
    name: str, layout: str, held: Mapping[str, str], current: Mapping[str, str], now: datetime
) -> Iterator[dict[str, Any]]:
    for digest in sorted(current):
        if digest not in held:
            yield {
                "segment": name,
                "layout": layout,
                "digest": digest,
                "kind": current[digest],
                "exported_at": now,
            }
