"""F26 to F28: SMS providers over HTTP and SMPP that misbehave; receipts that come early, twice, late or for nobody."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select

from store.engine import reading, writing
from store.inbox import gateway_source, put
from store.tables import lanes, messages
from tests.faults.bench import SMS_SETTINGS, Bench
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.people import seed_sms
from tests.integration.returning import everything
from tests.seeding import states
from tests.servers.chaos_proxy import ChaosProxy, Toxic
from tests.servers.ports import steady_port
from tests.servers.smsc import Said, Smsc, Submit
from tests.servers.truth import Taken
from workers.inbound.process import process_inbox

MESSAGES = 40
TIMES = 2
LANE = ["texts"]

PLAIN = {
    "an error within a 200": ('=200 {"status": "7"}', "failed"),
    "a later within a 200": ('=200 {"status": "1"}', "sent"),
    "too many requests": ("=429 slow down", "sent"),
    "busy": ("=503 busy", "sent"),
    "broken": ("=500 oops", "sent"),
    "not allowed": ("=401 who are you", "sent"),
    "a redirect": ("=302 elsewhere", "sent"),
    "a wrong number": ("=400 no such number", "failed"),
    "a proxy that timed out": ("=504 late", "in_doubt"),
    "no JSON": ("=200 <html>", "in_doubt"),
    "a huge body": ("=200 huge", "in_doubt"),
    "no answer": ("silent", "in_doubt"),
}


@pytest.mark.cell("F26")
@pytest.mark.parametrize("way", in_turn("F26", PLAIN, both=["no answer"]))
def test_a_provider_that_took_nothing_answers(way: str, sms_bench: Bench, weigh: Callable[..., None]) -> None:
    act, ending = PLAIN[way]
    seed_sms(sms_bench.engine, MESSAGES)
    provider = sms_bench.provider(f"body:{act};{TIMES}:10" if act.startswith("=") else f"body:{act}:{TIMES}:10")
    provider.headers["Retry-After"] = "1"
    sms_bench.drive(lanes_used=LANE)
    weigh(sms_bench, Facts(doubtful=TIMES if ending == "in_doubt" else 0))
    assert provider.struck >= 1
    other = provider.struck if ending != "sent" else 0
    assert states(sms_bench.engine) == {"sent": MESSAGES - other} | ({ending: other} if other else {})


@pytest.mark.cell("F26")
@pytest.mark.parametrize("act", in_turn("F26", ["reset", "silent", "=200 <html>", "=504 late", "=500 oops"]))
def test_a_provider_that_took_it_and_does_not_say_so_leaves_it_in_doubt_or_settled(
    act: str, sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    provider = sms_bench.provider(f"answer:{act};{TIMES}:10" if act.startswith("=") else f"answer:{act}:{TIMES}:10")
    sms_bench.drive(lanes_used=LANE)
    if act.startswith("=500"):
        # A provider that says "not taken" and has taken it lies: nobody can know, and it comes twice. Only counted.
        return
    weigh(sms_bench, Facts(doubtful=TIMES))
    assert provider.struck == TIMES
    assert states(sms_bench.engine) == {"sent": MESSAGES - TIMES, "in_doubt": TIMES}


TOXICS = {
    "slow": Toxic(kind="latency", seconds=0.1),
    "narrow": Toxic(kind="bandwidth", amount=20_000),
    "in slices of 7 bytes": Toxic(kind="slicer", amount=7),
    "cut after 2 kB": Toxic(kind="limit_data", amount=2000, direction="down"),
    "reset within a second": Toxic(kind="reset_peer", seconds=0.5, direction="down"),
}


@pytest.mark.cell("F26")
@pytest.mark.parametrize("way", in_turn("F26", TOXICS))
def test_a_network_that_is(way: str, sms_bench: Bench, weigh: Callable[..., None]) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    sms_bench.provider()
    with ChaosProxy(sms_bench.port) as proxy:
        proxy.poison(TOXICS[way])
        sms_bench.use_port(proxy.port)
        sms_bench.drive(lanes_used=LANE)
        harmless = way in ("slow", "narrow", "in slices of 7 bytes")
        weigh(sms_bench, Facts(doubtful=0 if harmless else proxy.connections * 2))
        sms_bench.drain().close()


@pytest.mark.cell("F27", quick="sqlite")
def test_a_gateway_that_is_away_for_a_while_costs_no_message_an_attempt(
    sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    port = steady_port()
    sms_bench.use_port(port)
    sms_bench.run("texts")
    assert states(sms_bench.engine) == {"planned": MESSAGES}
    with reading(sms_bench.engine) as connection:
        assert set(connection.execute(select(messages.c.attempts)).scalars()) == {0}
        assert connection.execute(select(lanes.c.reason)).scalar_one()
    sms_bench.provider(port=port)
    sms_bench.drive(lanes_used=LANE)
    weigh(sms_bench, Facts())
    assert states(sms_bench.engine) == {"sent": MESSAGES}


def _call_back(bench: Bench, ref: str, status: str, key: str, gateway_id: str = "gw") -> None:
    body = {"client_ref": ref, "status": status, "id": gateway_id}
    with writing(bench.engine) as connection:
        put(
            connection,
            key=key,
            source=gateway_source("texts"),
            body=json.dumps(body).encode(),
            meta={"recipient": "", "kind": "receipt", "query": "", "headers": {"content-type": "application/json"}},
            received_at=datetime.now(UTC),
        )


@pytest.mark.cell("F27", quick=True)
def test_receipts_before_the_answer_twice_in_any_order_and_for_nobody_change_nothing_twice(
    sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    bench = sms_bench
    early: list[str] = []

    def before_the_answer(taken: Taken) -> None:
        """The provider's receipt overtakes its own answer: it is in the inbox, and read, before we hear of the SMS."""
        early.append(taken.id)
        _call_back(bench, taken.id, "delivered", key=f"early-{taken.id}")

    bench.provider(taken_over=before_the_answer)
    process_inbox(bench.engine, bench.workspace, now=datetime.now(UTC))
    bench.drive(lanes_used=LANE)
    assert len(early) == MESSAGES
    chance = random.Random(27)
    again = [(ref, status) for ref in early for status in ("delivered", "delivered", "accepted")]
    again += [("nobody", "delivered"), ("", "failed"), ("~" * 40, "delivered")]
    chance.shuffle(again)
    for number, (ref, status) in enumerate(again):
        _call_back(bench, ref, status, key=f"late-{number}")
    while process_inbox(bench.engine, bench.workspace, now=datetime.now(UTC)):
        pass
    weigh(bench, Facts())
    assert states(bench.engine) == {"delivered": MESSAGES}
    before = {name: rows for name, rows in everything(bench.engine).items() if name != "inbox"}
    for number, (ref, status) in enumerate(again[::-1]):
        _call_back(bench, ref, status, key=f"replayed-{number}")
    while process_inbox(bench.engine, bench.workspace, now=datetime.now(UTC)):
        pass
    # I8: replayed in another order, nothing but the inbox itself differs.
    assert {name: rows for name, rows in everything(bench.engine).items() if name != "inbox"} == before


SMPP_SETTINGS = SMS_SETTINGS[: SMS_SETTINGS.index("  texts:")] + (
    "  texts: {{type: smpp, host: 127.0.0.1, port: {port}, tls: none, system_id: carillon, password: secret,"
    " timeout: 2s, enquire_link: 1s, window: 4{more}}}\nlimits: {{first_retry: 1s}}\n"
)


class _Odd:
    """An SMSC that answers oddly for a while, and keeps what it took over."""

    def __init__(self, said: Said, times: int, after: int) -> None:
        self.said, self.times, self.after = said, times, after
        self.seen = 0
        self.kept: list[str] = []
        self.maybe: list[str] = []

    def __call__(self, submit: Submit) -> Said:
        self.seen += 1
        odd = self.after < self.seen <= self.after + self.times
        if not odd:
            self.kept.append(submit.destination[2])
        elif isinstance(self.said, str):
            self.maybe.append(submit.destination[2])
        return self.said if odd else 0


SAID: dict[str, tuple[Said, int]] = {
    "throttled": (0x58, 0),
    "a full queue": (0x14, 0),
    "refused": (0x0B, 0),
    "the connection lost": ("drop", 4),
    "unbound": ("unbind", 4),
    "silent": ("silent", 4),
}


@pytest.mark.cell("F28")
@pytest.mark.parametrize("hex_ids", [False, True], ids=["decimal", "hex"])
@pytest.mark.parametrize("way", list(SAID))
def test_an_smsc_that_is(way: str, hex_ids: bool, sms_bench: Bench, note: Callable[..., None]) -> None:
    said, window = SAID[way]
    sms_bench.settings = SMPP_SETTINGS
    seed_sms(sms_bench.engine, MESSAGES)
    odd = _Odd(said, TIMES, 10)
    with Smsc(odd, hex_ids=hex_ids) as smsc:
        sms_bench.use_port(smsc.port)
        sms_bench.drive(lanes_used=LANE)
        sms_bench.drain().close()
    assert odd.seen > 10
    rows = _by_number(sms_bench)
    doubtful = {number for number, state in rows.items() if state == "in_doubt"}
    failed = {number for number, state in rows.items() if state == "failed"}
    note(messages=MESSAGES, accepted=len(odd.kept), in_doubt=len(doubtful))
    assert len(odd.kept) == len(set(odd.kept))
    assert {number for number, state in rows.items() if state == "sent"} <= set(odd.kept)
    assert set(odd.kept) <= set(rows) - failed
    assert len(doubtful) <= max(TIMES * window, 0)
    assert not doubtful & set(odd.kept) or way != "silent"
    assert len(failed) == (TIMES if way == "refused" else 0)
    assert len(rows) == MESSAGES


def _by_number(bench: Bench) -> dict[str, Any]:
    with reading(bench.engine) as connection:
        found = connection.execute(select(messages.c.id, messages.c.state)).all()
        assert connection.execute(select(lanes.c.name)).scalars().all() in ([], ["texts"])
    return {f"4479{number:08d}": state for number, (_, state) in enumerate(sorted(tuple(row) for row in found), 1)}
