"""Each trouble the status shows leads to the command that tells more or mends it; no trouble, no hint."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from campaigns.reasons import in_words
from kernel.vocabulary import FailReason, SkipReason
from workers.hints import Symptoms, hints

NOW = datetime(2026, 11, 26, 18, tzinfo=UTC)
WELL = Symptoms(
    states={"sent": 5, "in_doubt": 0},
    sendable_since=None,
    claims=0,
    closed=(),
    unknown_gateways={},
    paused_due=0,
    balanced=True,
)
LONG_SINCE = NOW - timedelta(minutes=30)


def test_all_well_says_nothing() -> None:
    assert hints(WELL, now=NOW) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"balanced": False}, "`carillon ledger audit`"),
        (
            {"sendable_since": LONG_SINCE},
            "due since 2026-11-26 17:30 UTC and nobody sends them: is `carillon up` running",
        ),
        ({"closed": ("relay",)}, "`carillon lanes open relay`"),
        (
            {"unknown_gateways": {"old": 1200}},
            "1,200 messages wait for gateway 'old', which carillon.yaml lacks: put it back",
        ),
        ({"unknown_gateways": {"old": 1}}, "1 message waits for gateway 'old', which carillon.yaml lacks: put it back"),
        ({"paused_due": 1200}, "1,200 of the messages due belong to paused campaigns"),
        ({"states": {"in_doubt": 2}}, "2 may or may not have been sent: `carillon ledger doubts`"),
    ],
)
def test_each_trouble_has_its_hint(change: dict[str, Any], words: str) -> None:
    [hint] = hints(replace(WELL, **change), now=NOW)
    assert words in hint


def test_work_in_hand_or_just_due_is_no_trouble() -> None:
    assert hints(replace(WELL, sendable_since=LONG_SINCE, claims=1), now=NOW) == ()
    assert hints(replace(WELL, sendable_since=NOW - timedelta(seconds=90)), now=NOW) == ()


@pytest.mark.parametrize("reason", [*SkipReason, *FailReason])
def test_every_reason_has_words(reason: str) -> None:
    assert in_words(reason).startswith(f"{reason}: ")


def test_an_unknown_reason_stands_alone() -> None:
    assert in_words("from_a_later_version") == "from_a_later_version"
    assert in_words(None) == "no reason is kept"
