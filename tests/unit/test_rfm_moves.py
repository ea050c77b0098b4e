"""The band around borders, and why subjects change groups."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments import rfm
from segments.rfm import Axes, Behaviour, Borders, Cutoffs
from segments.rfm_maps import GroupMap, built_in, groups
from segments.rfm_moves import REASONS, STAYED, MovedBy, Rules, moved_by, settle, waited

GRID = built_in("grid")
Row = tuple[int, int, int]

BORDERS = Cutoffs(
    scores=5, recency=(30, 60, 120, 365), frequency=(20, 10, 5, 2), monetary=(50_000, 20_000, 5_000, 1_000)
)


def behaviour(rows: list[Row]) -> Behaviour:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Behaviour(recency_days=table[:, 0], frequency=table[:, 1], monetary=table[:, 2])


def axes(rows: list[Row]) -> Axes:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return Axes(r=table[:, 0], f=table[:, 1], m=table[:, 2])


def listed(found: Axes) -> list[Row]:
    return list(zip(found.r.tolist(), found.f.tolist(), found.m.tolist(), strict=True))


row = st.tuples(st.integers(0, 500), st.integers(1, 40), st.integers(-2000, 100_000))
rows = st.lists(row, max_size=60)
pairs = st.lists(st.tuples(row, row), min_size=1, max_size=60)
bands = st.sampled_from([0.0, 0.02, 0.1, 0.29, 0.49])


def both(data: list[tuple[Row, Row]]) -> tuple[Behaviour, Behaviour]:
    return behaviour([first for first, _ in data]), behaviour([second for _, second in data])


# --- the band ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "now", "kept"),
    [
        ((4, 4, 4), (28, 21, 54_999), (4, 4, 4)),  # past the border of 5, not by a tenth of it
        ((4, 4, 4), (27, 22, 55_000), (5, 5, 5)),  # past it by a tenth
        ((5, 5, 5), (33, 18, 45_000), (5, 5, 5)),  # short of it, not by more than a tenth
        ((5, 5, 5), (34, 17, 44_999), (4, 4, 4)),  # short of it by more
        ((5, 1, 5), (30, 2, 50_000), (5, 2, 5)),  # a tenth of two orders is none
        ((5, 2, 5), (30, 1, 50_000), (5, 1, 5)),
        ((1, 1, 1), (0, 99, 99_999), (5, 5, 5)),  # far moves are not held back
        ((1, 1, 1), (29, 20, 50_500), (4, 4, 4)),  # as far as the band allows
        ((0, 0, 0), (28, 21, 50_500), (5, 5, 5)),  # never scored before: the bare borders
    ],
)
def test_a_score_changes_only_past_the_border_by_the_band(old: Row, now: Row, kept: Row) -> None:
    assert listed(settle(axes([old]), behaviour([now]), BORDERS, 0.1)) == [kept]


def test_a_band_is_the_decimal_share_that_was_written() -> None:
    borders = Cutoffs(scores=2, recency=(100,), frequency=(100,), monetary=(100,))
    # In binary 0.29 * 100 is 28.999999999999996; a band of 28 would let 128 rise and 71 fall.
    assert listed(settle(axes([(1, 1, 1)]), behaviour([(72, 128, 128)]), borders, 0.29)) == [(1, 1, 1)]
    assert listed(settle(axes([(2, 2, 2)]), behaviour([(129, 71, 71)]), borders, 0.29)) == [(2, 2, 2)]


def test_the_band_of_a_negative_border_lies_on_both_sides_of_it_too() -> None:
    borders = Cutoffs(scores=2, recency=(100,), frequency=(100,), monetary=(-1000,))
    old, did = [(2, 1, 1), (2, 1, 1), (2, 1, 2), (2, 1, 2)], [-901, -900, -1100, -1101]
    found = settle(axes(old), behaviour([(1, 1, money) for money in did]), borders, 0.1)
    assert found.m.tolist() == [1, 2, 2, 1]


@given(rows, rows)
def test_without_a_band_the_scores_are_those_of_the_cutoffs(data: list[Row], reference: list[Row]) -> None:
    did, cutoffs = behaviour(data), rfm.fit(behaviour(reference), "quintiles")
    assert listed(settle(axes([(3, 3, 3)] * len(data)), did, cutoffs, 0.0)) == listed(rfm.apply(cutoffs, did))


def settled_by_hand(old: int, value: int, borders: Borders, percent: int, *, low_is_good: bool) -> int:
    """One score at a time, as the docstring tells it."""
    sign = -1 if low_is_good else 1
    best = len(borders) + 1
    given = {best - i: border for i, border in enumerate(borders) if border is not None}
    past = {score: sign * (value - border) for score, border in given.items()}
    bands = {score: percent * abs(border) // 100 for score, border in given.items()}
    if old == 0:
        return max([1, *(score for score in given if past[score] >= 0)])
    risen = max([1, *(score for score in given if past[score] >= bands[score])])
    if risen > old:
        return risen
    return min(old, max([1, *(score for score in given if past[score] >= -bands[score])]))


@pytest.mark.parametrize("percent", [0, 2, 10, 29, 49])
@given(data=pairs, reference=rows)
def test_scores_settle_as_by_hand(percent: int, data: list[tuple[Row, Row]], reference: list[Row]) -> None:
    first, did = both(data)
    cutoffs = rfm.fit(behaviour(reference), "quintiles")
    old = rfm.apply(BORDERS, first)
    old.r[::3] = old.f[::3] = old.m[::3] = 0
    found = settle(old, did, cutoffs, percent / 100)
    for held, values, borders, now in (
        (old.r, did.recency_days, cutoffs.recency, found.r),
        (old.f, did.frequency, cutoffs.frequency, found.f),
        (old.m, did.monetary, cutoffs.monetary, found.m),
    ):
        low = values is did.recency_days
        assert now.tolist() == [
            settled_by_hand(a, b, borders, percent, low_is_good=low)
            for a, b in zip(held.tolist(), values.tolist(), strict=True)
        ]


@given(pairs, bands)
def test_settling_twice_is_settling_once(data: list[tuple[Row, Row]], band: float) -> None:
    first, did = both(data)
    once = settle(rfm.apply(BORDERS, first), did, BORDERS, band)
    assert listed(settle(once, did, BORDERS, band)) == listed(once)


@given(pairs, bands)
def test_a_settled_score_lies_between_the_old_one_and_that_of_the_cutoffs(
    data: list[tuple[Row, Row]], band: float
) -> None:
    first, did = both(data)
    old, fresh = rfm.apply(BORDERS, first), rfm.apply(BORDERS, did)
    found = settle(old, did, BORDERS, band)
    for a, b, c in ((old.r, found.r, fresh.r), (old.f, found.f, fresh.f), (old.m, found.m, fresh.m)):
        assert ((np.minimum(a, c) <= b) & (b <= np.maximum(a, c))).all()


@given(pairs, bands, st.randoms(use_true_random=False))
def test_permuting_the_rows_changes_nobodys_settled_scores(
    data: list[tuple[Row, Row]], band: float, random: Random
) -> None:
    shuffled = list(data)
    random.shuffle(shuffled)

    def found(these: list[tuple[Row, Row]]) -> dict[tuple[Row, Row], Row]:
        first, did = both(these)
        return dict(zip(these, listed(settle(rfm.apply(BORDERS, first), did, BORDERS, band)), strict=True))

    assert found(shuffled) == found(data)


def test_a_unit_of_money_more_or_less_for_everybody_moves_nearly_nobody() -> None:
    rng = np.random.default_rng(11)
    count = 5_000
    money = rng.lognormal(9, 1.2, count).astype(np.int64) + 2_000
    did = Behaviour(recency_days=rng.integers(0, 400, count), frequency=rng.geometric(0.2, count), monetary=money)
    noisy = Behaviour(
        recency_days=did.recency_days, frequency=did.frequency, monetary=money + rng.integers(-100, 101, count)
    )
    scores, refitted = rfm.apply(rfm.fit(did, "quintiles"), did), rfm.fit(noisy, "quintiles")
    moved = {band: int((settle(scores, noisy, refitted, band).m != scores.m).sum()) for band in (0.0, 0.05)}
    assert moved[0.0] > 0
    assert moved[0.05] == 0


@pytest.mark.parametrize("band", [-0.1, 0.5])
def test_a_band_out_of_range_is_refused(band: float) -> None:
    with pytest.raises(ValueError, match="band must lie in"):
        settle(axes([]), behaviour([]), BORDERS, band)


def test_scores_of_a_scheme_with_more_of_them_are_refused() -> None:
    three = Cutoffs(scores=3, recency=(30, 60), frequency=(5, 2), monetary=(100, 10))
    with pytest.raises(ValueError, match="starts anew, with zeros"):
        settle(axes([(4, 1, 1)]), behaviour([(1, 1, 1)]), three, 0.1)


def test_nobody_settles_into_nothing() -> None:
    assert listed(settle(axes([]), behaviour([]), BORDERS, 0.1)) == []


# --- reasons -------------------------------------------------------------------------------------------------


def named_reasons(
    before: list[Row],
    now: list[Row],
    *,
    acted: list[bool],
    days: int,
    fresh: Cutoffs = BORDERS,
    new_map: GroupMap = GRID,
    band: float = 0.0,
) -> list[str]:
    """Who scored by BORDERS and the grid before, and by `fresh` and `new_map` now; "" where the group stays."""
    first, did = behaviour(before), behaviour(now)
    old = rfm.apply(BORDERS, first)
    found = moved_by(
        old,
        Rules(cutoffs=BORDERS, map=GRID, band=band),
        now=did,
        had_waited=waited(first, did, acted=np.array(acted, dtype=np.bool_), recency_gain=days),
        codes=groups(new_map, settle(old, did, fresh, band)),
        names=new_map.names,
    )
    return ["" if reason == STAYED else REASONS[reason].value for reason in found.tolist()]


POTENTIAL, SLEEPY = (58, 3, 9_000), (65, 3, 9_000)
STRICTER = Cutoffs(
    scores=5, recency=(20, 50, 120, 365), frequency=(20, 10, 5, 2), monetary=(50_000, 20_000, 5_000, 1_000)
)


def test_passing_days_move_by_time() -> None:
    assert named_reasons([POTENTIAL], [SLEEPY], acted=[False], days=7) == ["time"]


def test_an_act_that_makes_no_difference_leaves_it_to_time() -> None:
    assert named_reasons([POTENTIAL], [(65, 3, 8_000)], acted=[True], days=7) == ["time"]


def test_an_order_moves_by_own_action() -> None:
    assert named_reasons([POTENTIAL], [(0, 10, 30_000)], acted=[True], days=7) == ["own_action"]


def test_an_order_on_the_day_the_cutoffs_move_is_own_action() -> None:
    assert named_reasons([POTENTIAL], [(0, 10, 30_000)], acted=[True], days=7, fresh=STRICTER) == ["own_action"]


def test_moved_borders_alone_move_by_cutoff() -> None:
    assert named_reasons([POTENTIAL], [(59, 3, 9_000)], acted=[False], days=1, fresh=STRICTER) == ["cutoff"]


def test_a_new_map_moves_by_cutoff_and_only_where_the_name_differs() -> None:
    # By the grid 5-1-1 and 5-4-1 are new_customers and champions; by the eleven the latter is a loyal customer.
    rows = [(3, 1, 500), (3, 12, 500)]
    assert named_reasons(rows, rows, acted=[False] * 2, days=0, new_map=built_in("eleven")) == ["", "cutoff"]


def test_orders_a_window_lets_go_are_time() -> None:
    assert named_reasons([(40, 10, 30_000)], [(50, 4, 9_000)], acted=[False], days=10) == ["time"]


def test_who_had_no_scores_is_new_and_who_stays_has_no_reason() -> None:
    old = axes([(0, 0, 0), (4, 2, 3)])
    did = behaviour([(1, 1, 1), POTENTIAL])
    found = moved_by(
        old,
        Rules(cutoffs=BORDERS, map=GRID),
        now=did,
        had_waited=did,
        codes=groups(GRID, rfm.apply(BORDERS, did)),
        names=GRID.names,
    )
    assert found.tolist() == [REASONS.index(MovedBy.NEW), STAYED]


def test_the_band_of_the_old_rules_counts_in_the_reason() -> None:
    # At 65 days a band of a tenth holds R 4 (up to 66); at 67 it does not.
    assert named_reasons([POTENTIAL] * 2, [SLEEPY, (67, 3, 9_000)], acted=[False] * 2, days=7, band=0.1) == ["", "time"]


def test_nobody_has_no_reasons() -> None:
    assert named_reasons([], [], acted=[], days=0) == []


histories = st.lists(st.tuples(row, row, st.booleans()), min_size=1, max_size=60)


def lived(history: list[tuple[Row, Row, bool]], days: int) -> tuple[list[Row], list[Row], list[bool]]:
    """Before and now: who did nothing has the old orders and money, and a recency older by the days."""
    before = [first for first, _, _ in history]
    now = [second if acted else (first[0] + days, *first[1:]) for first, second, acted in history]
    return before, now, [acted for _, _, acted in history]


@given(histories, st.integers(0, 60), bands)
def test_while_the_rules_stay_nobody_moves_by_cutoff(
    history: list[tuple[Row, Row, bool]], days: int, band: float
) -> None:
    before, now, acted = lived(history, days)
    assert "cutoff" not in named_reasons(before, now, acted=acted, days=days, band=band)


@given(histories, st.integers(0, 60), bands, rows)
def test_who_did_nothing_never_moves_by_own_action(
    history: list[tuple[Row, Row, bool]], days: int, band: float, reference: list[Row]
) -> None:
    before, now, acted = lived(history, days)
    fresh = rfm.fit(behaviour(reference), "quintiles")
    reasons = named_reasons(before, now, acted=acted, days=days, band=band, fresh=fresh)
    assert not any(reason == "own_action" and not did for reason, did in zip(reasons, acted, strict=True))


@given(rows, bands)
def test_nothing_done_and_no_time_passed_moves_nobody(data: list[Row], band: float) -> None:
    assert set(named_reasons(data, data, acted=[False] * len(data), days=0, band=band)) <= {""}


@given(histories, st.integers(0, 60), bands, rows)
def test_there_is_a_reason_exactly_where_the_group_changed(
    history: list[tuple[Row, Row, bool]], days: int, band: float, reference: list[Row]
) -> None:
    before, now, acted = lived(history, days)
    fresh = rfm.fit(behaviour(reference), "quintiles")
    reasons = named_reasons(before, now, acted=acted, days=days, band=band, fresh=fresh)
    old = rfm.apply(BORDERS, behaviour(before))
    changed = groups(GRID, old) != groups(GRID, settle(old, behaviour(now), fresh, band))
    assert [reason != "" for reason in reasons] == changed.tolist()
