"""The last look before a message leaves, on what the database says at that moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update

from campaigns.applying import apply
from campaigns.clearing import clear
from campaigns.eligibility import Go, Skip, Verdict, Wait, check
from campaigns.firing import fire_due
from campaigns.versions import load_specs
from kernel.clock import to_ms
from kernel.vocabulary import MessageState, SkipReason
from store.engine import reading, writing
from store.ledger import ClaimedMessage
from store.tables import (
    campaigns,
    claims,
    consents,
    events,
    messages,
    opportunities,
    opportunity_stages,
    orders,
    runs,
    suppressions,
    touches,
)
from tests.integration.campaigning import CAMPAIGN, NOW, SETTINGS, add_account, add_contact, add_order, make_workspace

TWO_STEPS = """\
audience: {segment: everybody}
schedule: {at: "2026-12-01 09:00"}
goal: {order: {min_value: "100.00"}, within: 14d}
steps:
  - email: hello
  - email: hello
    wait: 1d
    skip_if: [converted, clicked]
"""
DAY = timedelta(days=1)


def fired(engine: Engine, root: Path, text: str = CAMPAIGN, settings: str = SETTINGS) -> list[int]:
    """Apply and fire one campaign; return its messages in order."""
    workspace = make_workspace(root, settings=settings, hello=text)
    apply(engine, workspace, None, now=NOW)
    fire_due(engine, workspace, now=NOW)
    with reading(engine) as connection:
        return list(connection.execute(select(messages.c.id).order_by(messages.c.id)).scalars())


def verdicts(engine: Engine, ids: list[int], now: datetime = NOW) -> list[Verdict]:
    with reading(engine) as connection:
        found = check(connection, ids, now=now)
    agree(engine, ids, found, now)
    return [found[one] for one in ids]


_SAME_NAMES = [name for name in ClaimedMessage._fields if name != "planned_ms"]


def agree(engine: Engine, ids: list[int], judged: dict[int, Verdict], now: datetime) -> None:
    """Assert that the quick look of a worker that claims these messages comes to the same verdicts."""
    with engine.connect() as connection, connection.begin() as transaction:
        values = {"lane": "relay", "host": "h", "boot": "b", "recorder": "r", "claimed_at": NOW, "lease_until": NOW}
        token = connection.execute(claims.insert().values(**values).returning(claims.c.id)).scalar_one()
        connection.execute(update(messages).where(messages.c.id.in_(ids)).values(state="claimed", claim_id=token))
        rows = connection.execute(
            select(messages, runs.c.campaign_id, runs.c.version_id)
            .join(runs, runs.c.id == messages.c.run_id)
            .where(messages.c.id.in_(ids))
        ).all()
        claimed = [
            ClaimedMessage(planned_ms=to_ms(row.planned_for), **{name: getattr(row, name) for name in _SAME_NAMES})
            for row in rows
        ]
        known = load_specs(connection, {row.version_id for row in rows})
        cleared = clear(connection, claimed, {row.run_id: known[row.version_id] for row in rows}, now=now)
        transaction.rollback()
    assert set(cleared) == set(judged)
    for one, verdict in judged.items():
        quick = cleared[one].verdict
        assert type(quick) is type(verdict), (quick, verdict)
        if not isinstance(verdict, Go):
            assert quick == verdict


def change(engine: Engine, table: Any, where: Any, **values: Any) -> None:
    with writing(engine) as connection:
        connection.execute(update(table).where(where).values(**values))


def send(engine: Engine, message_id: int, at: datetime = NOW, state: MessageState = MessageState.SENT) -> None:
    change(engine, messages, messages.c.id == message_id, state=state, sent_at=at)


def claim(engine: Engine, message_id: int, state: MessageState = MessageState.CLAIMED) -> None:
    with writing(engine) as connection:
        values = {"lane": "relay", "host": "h", "boot": "b", "recorder": "r", "claimed_at": NOW, "lease_until": NOW}
        token = connection.execute(claims.insert().values(**values).returning(claims.c.id)).scalar_one()
        connection.execute(update(messages).where(messages.c.id == message_id).values(state=state, claim_id=token))


def touch(engine: Engine, message_id: int, kind: str, verdict: str = "human") -> None:
    with writing(engine) as connection:
        connection.execute(
            touches.insert().values(
                message_id=message_id, kind=kind, at=NOW, method="GET", ip="", user_agent="", verdict=verdict
            )
        )


def test_who_may_be_sent_to_goes_with_the_address(engine: Engine, tmp_path: Path) -> None:
    add_contact(engine, "Anna", email="Anna@Shop.example")
    assert verdicts(engine, fired(engine, tmp_path)) == [Go(address="Anna@Shop.example")]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"email": None}, SkipReason.NO_ADDRESS),
        ({"email": ""}, SkipReason.NO_ADDRESS),
        ({"email": "anna(at)shop.example"}, SkipReason.INVALID_ADDRESS),
        ({"email": "anna@shop..example"}, SkipReason.INVALID_ADDRESS),
        ({"email": "anna@shop.example\r\nBcc: all@shop.example"}, SkipReason.INVALID_ADDRESS),
        ({"consent": ()}, SkipReason.NO_CONSENT),
        ({"consent": ("sms",)}, SkipReason.NO_CONSENT),
    ],
)
def test_addresses_and_consent_decide(
    sqlite_engine: Engine, tmp_path: Path, values: dict[str, Any], reason: SkipReason
) -> None:
    add_contact(sqlite_engine, "anna", **values)
    assert verdicts(sqlite_engine, fired(sqlite_engine, tmp_path)) == [Skip(reason)]


@pytest.mark.parametrize(("phone", "goes"), [("+447700900123", True), ("07700 900123", False), ("+0123456789", False)])
def test_an_sms_needs_an_international_number(sqlite_engine: Engine, tmp_path: Path, phone: str, goes: bool) -> None:
    add_contact(sqlite_engine, "anna", phone=phone)
    (verdict,) = verdicts(sqlite_engine, fired(sqlite_engine, tmp_path, CAMPAIGN.replace("email: hello", "sms: nudge")))
    assert isinstance(verdict, Go) == goes


def test_a_withdrawal_between_planning_and_sending_counts(engine: Engine, tmp_path: Path) -> None:
    anna = add_contact(engine, "anna")
    ids = fired(engine, tmp_path)
    change(engine, consents, consents.c.contact_id == anna, status="withdrawn")
    assert verdicts(engine, ids) == [Skip(SkipReason.NO_CONSENT)]


def test_a_suppressed_address_is_found_in_any_case_and_only_on_its_channel(engine: Engine, tmp_path: Path) -> None:
    add_contact(engine, "anna", email="Anna@Shop.example")
    add_contact(engine, "bert")
    ids = fired(engine, tmp_path)
    with writing(engine) as connection:
        for channel, address in (("email", "anna@shop.example"), ("sms", "bert@shop.example")):
            connection.execute(suppressions.insert().values(channel=channel, address=address, reason="manual", at=NOW))
    assert verdicts(engine, ids) == [Skip(SkipReason.SUPPRESSED), Go(address="bert@shop.example")]


def test_of_two_contacts_with_one_address_one_gets_the_message(engine: Engine, tmp_path: Path) -> None:
    for name, email in (("a", "Info@Shop.example"), ("b", "info@shop.example"), ("c", "INFO@SHOP.example")):
        add_contact(engine, name, email=email)
    first, second, third = fired(engine, tmp_path)

    goes, *wait = verdicts(engine, [first, second, third])
    assert isinstance(goes, Go)
    assert all(isinstance(one, Wait) and one.because is SkipReason.DUPLICATE_ADDRESS for one in wait)

    send(engine, first)
    assert verdicts(engine, [second, third]) == [Skip(SkipReason.DUPLICATE_ADDRESS)] * 2


def test_who_shares_an_address_is_not_lost_with_a_rival_that_never_went(engine: Engine, tmp_path: Path) -> None:
    add_contact(engine, "a", email="info@shop.example", consent=())
    add_contact(engine, "b", email="info@shop.example")
    ids = fired(engine, tmp_path)
    assert verdicts(engine, ids) == [Skip(SkipReason.NO_CONSENT), Go(address="info@shop.example")]
    change(engine, messages, messages.c.id == ids[0], state=MessageState.FAILED)
    assert verdicts(engine, ids[1:]) == [Go(address="info@shop.example")]


@pytest.mark.parametrize("state", [MessageState.CLAIMED, MessageState.SENDING])
def test_two_workers_with_one_address_stand_back_for_different_times(
    sqlite_engine: Engine, tmp_path: Path, state: MessageState
) -> None:
    for name in "ab":
        add_contact(sqlite_engine, name, email="info@shop.example")
    first, second = fired(sqlite_engine, tmp_path)
    claim(sqlite_engine, first, state)
    claim(sqlite_engine, second, state)
    (earlier,), (later,) = verdicts(sqlite_engine, [first]), verdicts(sqlite_engine, [second])
    assert isinstance(earlier, Wait)
    assert isinstance(later, Wait)
    assert NOW < earlier.until < later.until


def test_a_message_in_doubt_counts_as_one_that_came(sqlite_engine: Engine, tmp_path: Path) -> None:
    for name in "ab":
        add_contact(sqlite_engine, name, email="info@shop.example")
    first, second = fired(sqlite_engine, tmp_path)
    send(sqlite_engine, first, state=MessageState.IN_DOUBT)
    assert verdicts(sqlite_engine, [second]) == [Skip(SkipReason.DUPLICATE_ADDRESS)]


def test_a_cap_counts_accepted_messages_of_the_channel_within_its_time(engine: Engine, tmp_path: Path) -> None:
    settings = SETTINGS + "limits: {caps: [{channel: email, messages: 1, within: 7d}]}\n"
    add_contact(engine, "anna")
    first, second = fired(engine, tmp_path, TWO_STEPS, settings)
    later = NOW + 6 * DAY
    change(engine, messages, messages.c.id == second, planned_for=later)

    assert isinstance(verdicts(engine, [second], later)[0], Go)
    send(engine, first)
    assert verdicts(engine, [second], later) == [Skip(SkipReason.FREQUENCY_CAP)]
    assert isinstance(verdicts(engine, [second], NOW + 7 * DAY)[0], Go)
    send(engine, first, state=MessageState.FAILED)
    assert isinstance(verdicts(engine, [second], later)[0], Go)


def test_a_cap_holds_within_one_chunk_and_across_workers(engine: Engine, tmp_path: Path) -> None:
    settings = SETTINGS + "limits: {caps: [{channel: email, messages: 1, within: 7d}]}\n"
    add_contact(engine, "anna")
    first, second = fired(engine, tmp_path, TWO_STEPS, settings)
    goes, waits = verdicts(engine, [first, second])
    assert isinstance(goes, Go)
    assert isinstance(waits, Wait)
    assert waits.because is SkipReason.FREQUENCY_CAP
    claim(engine, first)
    assert isinstance(verdicts(engine, [second])[0], Wait)


def test_a_message_too_late_is_skipped(sqlite_engine: Engine, tmp_path: Path) -> None:
    add_contact(sqlite_engine, "anna")
    ids = fired(sqlite_engine, tmp_path)
    assert isinstance(verdicts(sqlite_engine, ids, NOW + 3 * DAY)[0], Go)
    assert verdicts(sqlite_engine, ids, NOW + 3 * DAY + timedelta(seconds=1)) == [Skip(SkipReason.TOO_LATE)]


def test_a_message_waits_for_the_window_of_its_recipient(engine: Engine, tmp_path: Path) -> None:
    text = CAMPAIGN.replace('09:00"', '09:00", window: {hours: "08:00-18:00", days: [mon, tue, wed, thu, fri]}')
    add_contact(engine, "london")
    add_contact(engine, "tokyo", timezone="Asia/Tokyo")
    ids = fired(engine, tmp_path, text)
    evening = NOW.replace(hour=17, minute=59)
    assert isinstance(verdicts(engine, ids, evening)[0], Go)
    assert verdicts(engine, ids, NOW.replace(hour=18)) == [
        Wait(NOW.replace(day=2, hour=8)),
        Wait(datetime(2026, 12, 1, 23, 0, tzinfo=UTC)),
    ]
    friday = datetime(2026, 12, 4, 18, 0, tzinfo=UTC)
    assert verdicts(engine, ids[:1], friday - 3 * DAY + timedelta(hours=1)) == [Wait(NOW.replace(day=2, hour=8))]
    change(engine, messages, messages.c.id == ids[0], planned_for=friday)
    assert verdicts(engine, ids[:1], friday) == [Wait(datetime(2026, 12, 7, 8, 0, tzinfo=UTC))]


def test_a_cancelled_campaign_sends_nothing_that_was_already_claimed(engine: Engine, tmp_path: Path) -> None:
    add_contact(engine, "anna")
    ids = fired(engine, tmp_path)
    change(engine, campaigns, campaigns.c.name == "hello", state="cancelled")
    assert verdicts(engine, ids) == [Skip(SkipReason.CANCELLED)]


@pytest.mark.parametrize(
    ("kind", "verdict", "skipped"),
    [("click", "human", True), ("click", "machine", False), ("click", "unknown", False), ("open", "human", False)],
)
def test_a_later_step_is_left_out_for_people_who_clicked_not_for_machines(
    sqlite_engine: Engine, tmp_path: Path, kind: str, verdict: str, skipped: bool
) -> None:
    add_contact(sqlite_engine, "anna")
    add_contact(sqlite_engine, "bert")
    first, _, second, other = fired(sqlite_engine, tmp_path, TWO_STEPS)
    touch(sqlite_engine, first, kind, verdict)
    assert [isinstance(one, Skip) for one in verdicts(sqlite_engine, [second, other])] == [skipped, False]
    if skipped:
        assert verdicts(sqlite_engine, [second]) == [Skip(SkipReason.STEP_CONDITION)]


def test_a_click_shows_that_it_was_opened(sqlite_engine: Engine, tmp_path: Path) -> None:
    add_contact(sqlite_engine, "anna")
    first, second = fired(sqlite_engine, tmp_path, TWO_STEPS.replace("clicked", "opened"))
    touch(sqlite_engine, first, "click")
    assert verdicts(sqlite_engine, [second]) == [Skip(SkipReason.STEP_CONDITION)]


def test_the_order_of_a_colleague_ends_the_campaign_for_the_account(engine: Engine, tmp_path: Path) -> None:
    account, other = add_account(engine, "A1"), add_account(engine, "A2")
    for name, where in (("anna", account), ("bert", account), ("carl", other)):
        add_contact(engine, name, where)
    later = fired(engine, tmp_path, TWO_STEPS)[3:]
    add_order(engine, "before", account, NOW - DAY, 90_000)
    add_order(engine, "small", account, NOW + DAY / 4, 9_999)
    add_order(engine, "return", account, NOW + DAY / 4, 90_000, kind="return")
    assert [isinstance(one, Go) for one in verdicts(engine, later, NOW + DAY)] == [True, True, True]

    add_order(engine, "big", account, NOW + DAY / 2, 10_000)
    converted = Skip(SkipReason.CONVERTED)
    found = verdicts(engine, later, NOW + DAY)
    assert found[:2] == [converted, converted]
    assert isinstance(found[2], Go)

    change(engine, orders, orders.c.external_id == "big", cancelled_at=NOW + DAY)
    assert isinstance(verdicts(engine, later, NOW + DAY)[0], Go)


def test_stages_and_events_are_goals_too(engine: Engine, tmp_path: Path) -> None:
    account = add_account(engine, "A1")
    anna = add_contact(engine, "anna", account)
    alone = add_contact(engine, "alone")
    for number, goal in enumerate(("{opportunity_stage: won, within: 7d}", "{event: demo, within: 7d}")):
        text = TWO_STEPS.replace('{order: {min_value: "100.00"}, within: 14d}', goal)
        workspace = make_workspace(tmp_path / str(number), **{f"goal_{number}": text})
        apply(engine, workspace, None, now=NOW)
        fire_due(engine, workspace, now=NOW)
    with writing(engine) as connection:
        deal = connection.execute(
            opportunities.insert()
            .values(external_id="D1", account_id=account, stage="won", stage_at=NOW)
            .returning(opportunities.c.id)
        ).scalar_one()
        for stage, at in (("won", NOW - DAY), ("lost", NOW + DAY / 2)):
            connection.execute(opportunity_stages.insert().values(opportunity_id=deal, stage=stage, entered_at=at))
        connection.execute(events.insert().values(external_id="E1", contact_id=alone, name="demo", at=NOW + DAY / 2))

    def outcomes() -> list[tuple[int, int, str]]:
        with reading(engine) as connection:
            rows = connection.execute(select(messages).where(messages.c.step == 2).order_by(messages.c.id)).all()
            found = check(connection, [row.id for row in rows], now=NOW + DAY)
        return [(row.run_id, row.contact_id, type(found[row.id]).__name__) for row in rows]

    assert outcomes() == [(1, anna, "Go"), (1, alone, "Go"), (2, anna, "Go"), (2, alone, "Skip")]
    with writing(engine) as connection:
        connection.execute(
            opportunity_stages.insert().values(opportunity_id=deal, stage="won", entered_at=NOW + DAY / 2)
        )
    assert outcomes()[0] == (1, anna, "Skip")


def test_the_number_of_queries_does_not_grow_with_the_number_of_messages(engine: Engine, tmp_path: Path) -> None:
    settings = SETTINGS + "limits: {caps: [{channel: email, messages: 5, within: 7d}]}\n"
    for number in range(300):
        add_contact(engine, f"c{number}")
    ids = fired(engine, tmp_path, TWO_STEPS, settings)
    counted: list[int] = []
    for some in (ids[:3], ids):
        statements: list[str] = []

        def note(*arguments: Any, log: list[str] = statements) -> None:
            log.append(arguments[2])

        event.listen(engine, "before_cursor_execute", note)
        with reading(engine) as connection:
            check(connection, some, now=NOW)
        event.remove(engine, "before_cursor_execute", note)
        counted.append(len(statements))
    assert len(ids) == 600
    assert counted[1] <= 10


def test_ids_that_no_message_has_get_no_verdict(sqlite_engine: Engine, tmp_path: Path) -> None:
    add_contact(sqlite_engine, "anna")
    ids = fired(sqlite_engine, tmp_path)
    with reading(sqlite_engine) as connection:
        assert check(connection, [*ids, 999], now=NOW).keys() == set(ids)
        assert check(connection, [], now=NOW) == {}
