"""F26 over TLS: who cannot be trusted is told nothing; behind a good certificate every stage means what it means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from store.engine import reading
from store.tables import lanes, messages
from tests.faults.bench import SMS_SETTINGS, Bench, certified
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.people import seed_sms
from tests.seeding import states
from tests.servers.ports import steady_port

pytestmark = pytest.mark.cell("F26")

MESSAGES = 40
TIMES = 2
LANE = ["texts"]
UNTRUSTED = ["of another authority", "expired", "for another host"]


@pytest.mark.parametrize("way", in_turn("F26", [*UNTRUSTED, "hung", "no TLS at all"], both=["of another authority"]))
def test_a_provider_whose_handshake_cannot_be_trusted_is_told_nothing(
    way: str, sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    bench = sms_bench
    context, authority = certified(way, bench.root)
    port = steady_port()
    bench.settings = _over_tls(f"ca_file: {authority}")
    seed_sms(bench.engine, MESSAGES)
    # A server in clear that is silent leaves the client's first words unanswered; one that talks is no TLS.
    plan = {"hung": ["connect:silent:*"], "no TLS at all": ["connect:=400 what;*"]}.get(way, [])
    bad = bench.provider(*plan, port=port, tls=context if way in UNTRUSTED else None)
    bench.run("texts")
    assert states(bench.engine) == {"planned": MESSAGES}
    assert bench.accepted() == []
    with reading(bench.engine) as connection:
        assert set(connection.execute(select(messages.c.attempts)).scalars()) == {0}
        assert connection.execute(select(lanes.c.reason)).scalar_one()
    assert bad.taken == 0
    bench.end_servers()
    good, authority = certified("good", bench.root)
    bench.provider(port=port, tls=good)
    bench.anew()
    bench.drive(lanes_used=LANE)
    weigh(bench, Facts())
    assert states(bench.engine) == {"sent": MESSAGES}


@pytest.mark.parametrize(
    ("stage", "act", "ending"),
    in_turn(
        "F26",
        [
            *(("connect", "reset", "sent"), ("body", "=503 busy", "sent"), ("body", "silent", "in_doubt")),
            *(("answer", "reset", "in_doubt"), ("answer", "close", "in_doubt"), ("answer", "=200 <html>", "in_doubt")),
        ],
    ),
)
def test_within_tls_a_stage_means_what_it_means_in_clear(
    stage: str, act: str, ending: str, sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    bench = sms_bench
    context, authority = certified("good", bench.root)
    bench.settings = _over_tls(f"ca_file: {authority}")
    seed_sms(bench.engine, MESSAGES)
    after = 0 if stage == "connect" else 10
    provider = bench.provider(f"{stage}:{act}{';' if act.startswith('=') else ':'}{TIMES}:{after}", tls=context)
    bench.drive(lanes_used=LANE)
    # Whether a cut at once met a request already on its way nobody can tell: at most those are in doubt.
    weigh(bench, Facts(doubtful=TIMES if ending == "in_doubt" or stage == "connect" else 0))
    assert provider.struck == TIMES
    doubtful = states(bench.engine).get("in_doubt", 0)
    assert doubtful == TIMES if ending == "in_doubt" else doubtful <= (TIMES if stage == "connect" else 0)


def _over_tls(more: str) -> str:
    return SMS_SETTINGS.replace("http://127", "https://127").replace("timeout: 2s", f"timeout: 2s\n    {more}")
