"""Taking over chunks whose worker died or fell silent, by what its flight recorder says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import Connection, Engine, select

from campaigns.versions import load_specs
from kernel.clock import from_ms, to_ms
from kernel.faultpoints import FaultPoint, faultpoint
from kernel.ids import boot_id, host_name
from kernel.settings import Settings, SuppressionSettings
from kernel.sms_terms import Tariff
from kernel.vocabulary import FailReason
from store.engine import reading, writing
from store.ingest.bulk import among
from store.ledger import (
    Abandoned,
    Ending,
    Outcome,
    abandoned,
    addresses,
    lease_over,
    release,
    sending_ids,
)
from store.tables import messages, runs
from store.types import database_now
from workers.limits.retries import retry_policy, spread_of
from workers.outcomes import write_outcomes
from workers.recorder import Entry, FlightRecorder, Slot

log = structlog.get_logger(__name__)

_ENDINGS = {
    Slot.UNTOUCHED: Ending.UNTOUCHED,
    Slot.COMMITTED: Ending.IN_DOUBT,
    Slot.ACCEPTED: Ending.ACCEPTED,
    Slot.REFUSED: Ending.REFUSED,
    Slot.DEFERRED: Ending.DEFERRED,
}


_SHORTLY = timedelta(seconds=5)


def recover(engine: Engine, settings: Settings, *, tariffs: Mapping[str, Tariff]) -> int:
    """Settle every claim that has lost its worker; return how many.

    Args:
        engine: The database.
        settings: When what had been deferred is tried again, and what refusals that may pass lead to.
        tariffs: What one part costs by lane; lanes without a price may be left out.

    On this host a dead owner is told by its recorder's lock, at once; a living but silent one by its lease. Claims
    of other hosts are left to those hosts for an hour past their lease; after that their `sending` is in doubt.
    """
    host, boot = host_name(), boot_id()
    with reading(engine) as connection:
        candidates = abandoned(connection, host)
    return sum(
        _settle(engine, candidate, host, boot, tariffs.get(candidate.lane, Tariff()), settings)
        for candidate in candidates
    )


def recorder_path(folder: str, claim_id: int) -> Path:
    """Return where the recorder of a claim lies."""
    return Path(folder) / f"{claim_id}.flight"


def _settle(
    engine: Engine,
    claim: Abandoned,
    host: str,
    boot: str,
    tariff: Tariff,
    settings: Settings,
) -> bool:
    recorder = None
    if claim.host == host and claim.boot == boot:
        recorder = FlightRecorder.rescue(recorder_path(claim.recorder, claim.id))
    if recorder is None:
        return _settle_blind(engine, claim, settings.suppression)
    settled = False
    try:
        settled = _settle_by(recorder, engine, claim, tariff, settings)
    finally:
        # Whatever happens the lock goes with it: kept, it would make the dead owner look alive to the next attempt.
        recorder.close(remove=settled)
    return settled


def _settle_by(
    recorder: FlightRecorder,
    engine: Engine,
    claim: Abandoned,
    tariff: Tariff,
    settings: Settings,
) -> bool:
    """Settle a claim by its flight recorder; False where its owner lives and holds the lease."""
    if not recorder.owner_is_dead():
        with reading(engine) as connection:
            late = lease_over(connection, claim.id)
        if not late:
            return False
        faultpoint(FaultPoint.BEFORE_FENCE_RAISED)
        recorder.raise_fence()
        faultpoint(FaultPoint.AFTER_FENCE_RAISED)
    entries = {entry.message_id: entry for entry in recorder.entries()}
    with writing(engine) as connection:
        now = from_ms(connection.execute(select(database_now())).scalar_one())
        sending = sending_ids(connection, claim.id)
        to = addresses(connection, list(sending))
        outcomes = [
            _outcome(entries.get(m, Entry(m, Slot.COMMITTED, 0, 0, 0, "")), to.get(m, ""), tariff, now) for m in sending
        ]
        held = recorder.in_hand()
        if held is not None and held not in sending:
            words = "the worker died or fell silent while it made this message"
            outcomes.append(Outcome(message_id=held, ending=Ending.DEFERRED, at_ms=to_ms(now), reply=words))
        else:
            held = None
        outcomes = _tried_again(connection, settings, outcomes, held, now)
        write_outcomes(connection, claim.id, outcomes, suppression=settings.suppression, recovered=True, last=False)
        release(connection, claim.id)
        faultpoint(FaultPoint.BEFORE_RECOVERY_COMMIT)
    faultpoint(FaultPoint.AFTER_RECOVERY_COMMIT)
    log.warning("chunk_recovered", claim=claim.id, **_tally(outcomes))
    return True


def _settle_blind(engine: Engine, claim: Abandoned, suppression: SuppressionSettings) -> bool:
    """Settle a claim without a recorder: never marked `sending` is safe; the rest cannot be known."""
    with writing(engine) as connection:
        if not claim.foreign_grace_over and not lease_over(connection, claim.id):
            return False
        now = from_ms(connection.execute(select(database_now())).scalar_one())
        doubtful = sending_ids(connection, claim.id)
        words = "the worker is gone and its flight recorder with it"
        to = addresses(connection, list(doubtful))
        outcomes = [
            Outcome(message_id=m, ending=Ending.IN_DOUBT, at_ms=to_ms(now), reply=words, address=to.get(m, ""))
            for m in doubtful
        ]
        write_outcomes(connection, claim.id, outcomes, suppression=suppression, recovered=True, last=False)
        release(connection, claim.id)
        faultpoint(FaultPoint.BEFORE_BLIND_COMMIT)
    log.warning("chunk_recovered_blind", claim=claim.id, in_doubt=len(doubtful))
    return True


def _tried_again(
    connection: Connection, settings: Settings, outcomes: list[Outcome], held: int | None, now: datetime
) -> list[Outcome]:
    """Say of each deferred message when it is tried again; one whose attempts or age are used up has failed.

    By the same policy as a living worker: a message whose worker dies every time is not tried for ever. `held` is the
    one that was being made.
    """
    deferred = [outcome.message_id for outcome in outcomes if outcome.ending is Ending.DEFERRED]
    if not deferred:
        return outcomes
    query = select(messages.c.id, messages.c.attempts, messages.c.planned_for, runs.c.version_id)
    rows = connection.execute(
        query.join(runs, runs.c.id == messages.c.run_id).where(among(connection, messages.c.id, deferred))
    )
    found = {row.id: row for row in rows}
    specs = load_specs(connection, {row.version_id for row in found.values()})

    def again(outcome: Outcome) -> Outcome:
        row = found.get(outcome.message_id)
        if row is None:  # Not deferred; or the message was made by the dead worker and is gone since.
            return outcome
        if row.id == held and row.attempts == 0:
            # Most likely it was in hand by chance: it lets the others go first, and no more.
            return outcome._replace(retry_at=now + _SHORTLY)
        retry_at = retry_policy(settings, specs[row.version_id].limits).next_try(
            now=now,
            planned_for=row.planned_for,
            attempts=row.attempts,
            spread=spread_of(row.id, row.attempts),
            at_least_s=0.0,
        )
        if retry_at is None:
            return outcome._replace(ending=Ending.REFUSED, fail_reason=FailReason.RETRIES_EXHAUSTED)
        return outcome._replace(retry_at=retry_at)

    return [again(outcome) for outcome in outcomes]


def _outcome(entry: Entry, address: str, tariff: Tariff, now: datetime) -> Outcome:
    price_micro = tariff.micro(address)
    ending = _ENDINGS[entry.slot]
    is_sms = entry.parts > 0
    words = entry.text
    if ending is Ending.IN_DOUBT:
        words = "the worker died between the final byte and the answer"
    elif ending is Ending.ACCEPTED and is_sms:
        words = str(entry.code)
    return Outcome(
        message_id=entry.message_id,
        ending=ending,
        # When it happened, not when it was found out: clicks are judged and caps counted by it.
        at_ms=entry.at_ms or to_ms(now),
        reply=words,
        code=entry.code,
        address=address,
        parts=entry.parts or None,
        cost_micro=None if price_micro is None else price_micro * (entry.parts or 1),
        gateway_id=entry.text or None if ending is Ending.ACCEPTED and is_sms else None,
        fail_reason=FailReason.REFUSED,
    )


def _tally(outcomes: list[Outcome]) -> dict[str, int]:
    tally: dict[str, int] = {}
    for outcome in outcomes:
        tally[outcome.ending.value] = tally.get(outcome.ending.value, 0) + 1
    return tally
