"""F17: the connection is cut at every stage of a send; only what was out and unanswered is in doubt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from store.engine import writing
from store.tables import campaign_versions
from tests.faults.bench import Bench
from tests.faults.checker import Facts, Judgement
from tests.faults.matrix import in_turn
from tests.faults.people import seed_sms
from tests.seeding import FILES, seed_messages, states

pytestmark = pytest.mark.cell("F17")

MESSAGES = 60
TIMES = 3
BEFORE = ["connect", "ehlo", "mail", "rcpt", "data"]
CUTS = in_turn("F17", ["reset", "close"])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stage", BEFORE)
def test_a_connection_cut_before_the_final_dot_leaves_nobody_in_doubt(
    stage: str, cut: str, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    after = 0 if stage in ("connect", "ehlo") else 20
    sink = bench.sink(f"{stage}:{cut}:{TIMES}:{after}")
    bench.drive()
    weigh(bench, Facts())
    assert sink.struck >= 1
    assert states(bench.engine) == {"sent": MESSAGES}


@pytest.mark.parametrize("cut", CUTS)
def test_a_connection_cut_within_a_small_body_leaves_at_most_those_in_doubt(
    cut: str, bench: Bench, weigh: Callable[..., Judgement]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink(f"body:{cut}:{TIMES}:20")
    bench.drive()
    # A small body and its final dot leave in one write: the dot was out, and how far it came nobody can tell.
    assert weigh(bench, Facts(doubtful=TIMES)).in_doubt == sink.struck == TIMES


@pytest.mark.parametrize("cut", in_turn("F17", ["reset", "close"]))
def test_a_connection_cut_within_a_large_body_leaves_nobody_in_doubt(
    cut: str, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, 8)
    line = "A line of a very long letter to everybody.\n"
    long = "{% for i in range(900) %}" + line * 45 + "{% endfor %}"
    # More than the kernel takes off the sender's hands: what is in its buffers counts as said.
    large = {**FILES, "hello/body.txt": long, "hello/body.html": f"<html><body><p>{long}</p></body></html>"}
    with writing(bench.engine) as connection:
        connection.execute(update(campaign_versions).values(files=large))
    sink = bench.sink(f"body:{cut}:{TIMES}:2", receive_buffer=8192)
    bench.drive()
    weigh(bench, Facts())
    assert sink.struck == TIMES
    assert states(bench.engine) == {"sent": 8}


@pytest.mark.parametrize("cut", in_turn("F17", ["kept", "lost", "close"], both=["kept"]))
def test_a_connection_cut_after_the_final_dot_leaves_exactly_those_in_doubt(
    cut: str, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink(f"dot:{cut}:{TIMES}:20")
    bench.drive()
    weigh(bench, Facts(doubtful=TIMES))
    assert sink.struck == TIMES
    assert states(bench.engine) == {"sent": MESSAGES - TIMES, "in_doubt": TIMES}


@pytest.mark.cell("F17", quick="sqlite")
def test_a_connection_cut_between_an_answer_and_the_farewell_changes_nothing(
    bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink("quit:reset:*")
    bench.drive()
    bench.drain().close()
    weigh(bench, Facts())
    assert sink.struck >= 1
    assert states(bench.engine) == {"sent": MESSAGES}


@pytest.mark.parametrize("cut", CUTS)
def test_a_provider_that_cuts_the_connection_before_a_request_leaves_nobody_in_doubt(
    cut: str, sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    provider = sms_bench.provider(f"connect:{cut}:{TIMES}")
    sms_bench.drive(lanes_used=["texts"])
    # A request may be on its way when the cut is seen: then nobody can know whether it was read.
    weigh(sms_bench, Facts(doubtful=TIMES))
    assert provider.struck == TIMES


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("stage", ["head", "body", "answer"])
def test_a_provider_that_cuts_the_connection_after_a_request_leaves_at_most_those_in_doubt(
    stage: str, cut: str, sms_bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_sms(sms_bench.engine, MESSAGES)
    provider = sms_bench.provider(f"{stage}:{cut}:{TIMES}:20")
    sms_bench.drive(lanes_used=["texts"])
    weigh(sms_bench, Facts(doubtful=TIMES))
    assert provider.struck == TIMES
    found = states(sms_bench.engine)
    assert found.get("in_doubt", 0) == TIMES
    assert found["sent"] == MESSAGES - TIMES
