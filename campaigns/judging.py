"""May this message leave now? The rules and their order, as a pure function of what is known. See docs/campaigns.md."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from email_validator import EmailNotValidError, validate_email

from campaigns.calendar import Window, earliest_send, zone_named
from campaigns.numbers import zone_of
from campaigns.schema import CampaignSpec
from kernel.clock import to_ms
from kernel.quantities import parse_duration
from kernel.settings import FrequencyCap, Limits
from kernel.vocabulary import Channel, ConsentStatus, SkipReason

_DEFAULT_LIMITS = Limits()
RIVAL_WAIT = timedelta(seconds=2)
"""How long a message stands back for another one that is on its way and may decide about it."""
_PLAIN_EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([A-Za-z0-9-]+\.)+[A-Za-z]{2,63}"
)
_E164 = re.compile(r"\+[1-9]\d{6,14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """It may leave now, to this address."""

    address: str = ""


@dataclass(frozen=True, slots=True)
class Skip:
    """It never leaves."""

    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Wait:
    """It may not leave before an instant; then it is asked again. `because` is the rule a rival stands for."""

    until: datetime
    because: SkipReason | None = None


Verdict = Go | Skip | Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is known of one message and its recipient. `address` is as kept, `key` in comparable form."""

    message_id: int
    run_id: int
    step: int
    contact_id: int
    channel: Channel
    planned_for: datetime
    address: str | None
    key: str
    contact_exists: bool
    consent: str | None
    zone: str | None
    cancelled: bool
    spec: CampaignSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Contactable:
    """A message that was accepted (or may have been), or is on its way: `in_flight`."""

    message_id: int
    at_ms: int
    in_flight: bool


Slot = tuple[int, int, str]
"""Run, step and comparable address: one message each."""


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What the database says that bears on a chunk of cases."""

    suppressed: set[tuple[str, str]] = field(default_factory=set)
    converted: set[int] = field(default_factory=set)
    touched: set[int] = field(default_factory=set)
    taken: dict[Slot, list[Contactable]] = field(default_factory=dict)
    recent: dict[tuple[int, str], list[Contactable]] = field(default_factory=dict)

    def note(self, case: Case, at: datetime, *, in_flight: bool) -> None:
        """Take a message that goes into account for those judged after it."""
        entry = Contactable(message_id=case.message_id, at_ms=to_ms(at), in_flight=in_flight)
        self.taken.setdefault((case.run_id, case.step, case.key), []).append(entry)
        self.recent.setdefault((case.contact_id, case.channel), []).append(entry)


def judge(case: Case, evidence: Evidence, at: datetime) -> Verdict:
    """Return whether a message may leave at an instant; the first rule that speaks decides."""
    reason = _skip_reason(case, evidence)
    if reason is not None:
        return Skip(reason)
    verdict = _rivals(case, evidence, at) or _caps(case, evidence, at)
    if verdict is not None:
        return verdict
    if case.planned_for + parse_duration(limits_of(case.spec).max_age) < at:
        return Skip(SkipReason.TOO_LATE)
    window = Window.of(case.spec.window_of(case.step))
    if not window.always:
        known = case.zone or (zone_of(case.address) if case.channel is Channel.SMS and case.address else None)
        zone = zone_named(known, case.spec.schedule.default_zone or "UTC")
        opens_at = earliest_send(at, zone, window).astimezone(UTC)
        if opens_at > at:
            return Wait(opens_at)
    return Go(address=case.address or "")


def _skip_reason(case: Case, evidence: Evidence) -> SkipReason | None:
    rules = (
        (not case.contact_exists, SkipReason.CONTACT_DELETED),
        (case.cancelled, SkipReason.CANCELLED),
        (case.message_id in evidence.converted, SkipReason.CONVERTED),
        (case.message_id in evidence.touched, SkipReason.STEP_CONDITION),
        (not case.address, SkipReason.NO_ADDRESS),
    )
    for holds, reason in rules:
        if holds:
            return reason
    if not valid_address(case.channel, case.address or ""):
        return SkipReason.INVALID_ADDRESS
    if (case.channel, case.key) in evidence.suppressed:
        return SkipReason.SUPPRESSED
    return SkipReason.NO_CONSENT if case.consent != ConsentStatus.GRANTED else None


def valid_address(channel: Channel, address: str) -> bool:
    """Return whether an address can be sent to at all: its form, not whether somebody is there."""
    if channel is Channel.SMS:
        return _E164.fullmatch(address) is not None
    if len(address) <= 254 and _PLAIN_EMAIL.fullmatch(address) and len(address.partition("@")[0]) <= 64:
        return True
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


def _rivals(case: Case, evidence: Evidence, at: datetime) -> Verdict | None:
    """One message per run, step and address. An accepted rival decides; one on its way is waited for.

    Two workers may hold two rivals at once. Each has committed its claim before it asks, so at least one of them
    sees the other and stands back; the later id for longer, so that they do not meet again.
    """
    rivals = [
        one for one in evidence.taken.get((case.run_id, case.step, case.key), ()) if one.message_id != case.message_id
    ]
    if any(not rival.in_flight for rival in rivals):
        return Skip(SkipReason.DUPLICATE_ADDRESS)
    return _stand_back(case, rivals, at, SkipReason.DUPLICATE_ADDRESS) if rivals else None


def _caps(case: Case, evidence: Evidence, at: datetime) -> Verdict | None:
    recent = evidence.recent.get((case.contact_id, case.channel), ())
    others = [one for one in recent if one.message_id != case.message_id]
    waits: list[Verdict] = []
    for cap in limits_of(case.spec).caps:
        if cap.channel != case.channel:
            continue
        near = _within(others, cap, at)
        if sum(not one.in_flight for one in near) >= cap.messages:
            return Skip(SkipReason.FREQUENCY_CAP)
        if len(near) >= cap.messages:
            waits.append(_stand_back(case, [one for one in near if one.in_flight], at, SkipReason.FREQUENCY_CAP))
    return waits[0] if waits else None


def _within(entries: list[Contactable], cap: FrequencyCap, at: datetime) -> list[Contactable]:
    since = to_ms(at - parse_duration(cap.within))
    return [one for one in entries if one.in_flight or one.at_ms > since]


def _stand_back(case: Case, rivals: list[Contactable], at: datetime, reason: SkipReason) -> Wait:
    later = case.message_id > min(rival.message_id for rival in rivals)
    return Wait(at + RIVAL_WAIT * (5 if later else 1), because=reason)


def limits_of(spec: CampaignSpec) -> Limits:
    """Return a campaign's limits; the defaults where it was pinned without any."""
    return spec.limits or _DEFAULT_LIMITS
