"""F18 to F21: servers that refuse, babble, fall silent or put off; each reply means what its stage and code say."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select

from store.engine import reading
from store.tables import messages, suppressions
from tests.faults.bench import Bench
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.stage import SETTINGS
from tests.seeding import seed_messages, states

MESSAGES = 40
TIMES = 2
STAGES = ["connect", "ehlo", "mail", "rcpt", "data", "dot"]
PATIENCE_S = 6.0
PATIENT = SETTINGS.replace("timeout: 5s, final_timeout: 8s", "timeout: 6s, final_timeout: 8s")


def _refuses_for_good(stage: str, code: int) -> bool:
    """Tell whether a reply without an enhanced code ends its message. At MAIL and before, nobody is named yet."""
    if stage in ("connect", "ehlo"):
        return False
    if stage == "mail":
        return code == 552
    return code in (550, 554) or (code == 552 and stage != "rcpt")


@pytest.mark.cell("F18")
@pytest.mark.parametrize(
    "code",
    [
        *in_turn("F18", [421, 451, 550]),
        *(450, 452, 552, 554),
    ],
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_refusal_means_what_its_stage_and_code_say(
    stage: str, code: int, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    after = 0 if stage in ("connect", "ehlo") else 10
    sink = bench.sink(f"{stage}:={code} no;{TIMES}:{after}")
    bench.drive()
    weigh(bench, Facts())
    assert sink.struck >= 1
    failed = sink.struck if _refuses_for_good(stage, code) else 0
    assert states(bench.engine) == {"sent": MESSAGES - failed} | ({"failed": failed} if failed else {})


ODD = {
    "many lines": "250-first\\n250-second\\n250 third",
    "not a reply": "hello there",
    "a letter among digits": "25O ok",
    "NUL": "250 \\0\\0",
    "100 kB": "250 " + "x" * 100_000,
}


@pytest.mark.cell("F18")
@pytest.mark.parametrize("stage", ["ehlo", "rcpt", "data", "dot"])
@pytest.mark.parametrize("odd", [*list(ODD)[:-2], *in_turn("F18", list(ODD)[-2:])])
def test_a_reply_that_is_none_sends_nobody_twice(
    odd: str, stage: str, bench: Bench, weigh: Callable[..., None]
) -> None:
    seed_messages(bench.engine, MESSAGES)
    after = 0 if stage == "ehlo" else 10
    sink = bench.sink(f"{stage}:={ODD[odd]};{TIMES}:{after}")
    bench.drive()
    weigh(bench, Facts(doubtful=TIMES if stage == "dot" else 0))
    assert sink.struck >= 1
    found = states(bench.engine)
    assert found.get("sent", 0) + found.get("in_doubt", 0) == MESSAGES


@pytest.mark.cell("F19")
@pytest.mark.parametrize(
    ("stage", "act"),
    [
        *in_turn("F19", [(stage, "silent") for stage in STAGES] + [("dot", "drip")], both=[("dot", "silent")]),
        *((stage, "drip") for stage in STAGES[:-1]),
    ],
)
def test_a_server_that_falls_silent_on_one_connection_holds_up_no_other(
    stage: str, act: str, bench: Bench, weigh: Callable[..., None], note: Callable[..., None]
) -> None:
    bench.settings = PATIENT
    seed_messages(bench.engine, MESSAGES)
    after = 0 if stage in ("connect", "ehlo") else 10
    kept = "held" if (stage, act) == ("dot", "silent") else act
    sink = bench.sink(f"{stage}:{kept}:1:{after}")
    began = time.time()
    bench.drive()
    weigh(bench, Facts(doubtful=1 if stage == "dot" else 0))
    assert sink.struck == 1
    # All but the one, and what waited for its connection, leave before it is given up.
    prompt = sum(taken.at - began < PATIENCE_S for taken in bench.accepted())
    note(prompt=prompt)
    assert prompt >= MESSAGES - 10
    found = states(bench.engine)
    assert found.get("sent", 0) + found.get("in_doubt", 0) == MESSAGES


@pytest.mark.cell("F20", quick=True)
def test_a_greylisted_message_comes_again_in_the_same_envelope(bench: Bench, weigh: Callable[..., None]) -> None:
    seed_messages(bench.engine, MESSAGES)
    sink = bench.sink(greylist=True)
    bench.drive()
    weigh(bench, Facts())
    assert states(bench.engine) == {"sent": MESSAGES}
    assert len(sink.envelopes) == len({recipient for _, recipient in sink.envelopes}) == MESSAGES
    with reading(bench.engine) as connection:
        assert set(connection.execute(select(messages.c.attempts)).scalars()) == {1}


@pytest.mark.cell("F21", quick="postgresql")
def test_a_third_put_off_and_some_dropped_loses_nobody(
    bench: Bench, weigh: Callable[..., None], note: Callable[..., None]
) -> None:
    many = 500
    chance = random.Random(21)

    def spoil(stage: str) -> str | None:
        if stage == "rcpt" and chance.random() < 0.3:
            return "=451 4.3.0 later"
        return "reset" if stage in ("mail", "data") and chance.random() < 0.025 else None

    seed_messages(bench.engine, many)
    sink = bench.sink(chance=spoil)
    began = time.monotonic()
    bench.drive(seconds=150)
    weigh(bench, Facts())
    note(faults=sink.struck, per_s=round(many / (time.monotonic() - began)))
    assert sink.struck > many / 4
    found = states(bench.engine)
    # Eight tries at three in ten: hardly anybody uses theirs up.
    assert found["sent"] >= many - 3
    with reading(bench.engine) as connection:
        assert connection.execute(select(suppressions)).all() == []
