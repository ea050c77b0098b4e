"""Maps from RFM scores to groups: the published ones, and what a shop may write."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.documents import read_document
from kernel.errors import ConfigError
from kernel.settings import RfmGroupRule, RfmMapSettings, RfmSettings
from kernel.vocabulary import RFM_SEGMENTS
from segments.rfm import Axes
from segments.rfm_maps import ELEVEN_SEGMENTS, SIX_SEGMENTS, GroupMap, built_in, groups, map_for, own_map

PAGE = (Path(__file__).parents[2] / "docs" / "rfm.md").read_text(encoding="utf-8")
BUILT_IN = ("grid", "eleven", "six")
Code = tuple[int, int, int]

PUBLISHED_SIX = {
    "champions": "333 332 323",
    "loyal_customers": "321 322 331 232 233",
    "recent": "312 313 311 222 223",
    "need_attention": "213 221 123 132 133",
    "at_risk": "231 212 122 131 211",
    "inactive": "111 112 113 121",
}
# R and the average of F and M, as published and in the order they are usually listed in.
PUBLISHED_ELEVEN = {
    "champions": (4, 5, 4, 5),
    "loyal_customers": (2, 5, 3, 5),
    "potential_loyalists": (3, 5, 1, 3),
    "new_customers": (4, 5, 0, 1),
    "promising": (3, 4, 0, 1),
    "need_attention": (2, 3, 2, 3),
    "about_to_sleep": (2, 3, 0, 2),
    "at_risk": (0, 2, 2, 5),
    "cant_lose": (0, 1, 4, 5),
    "hibernating": (1, 2, 1, 2),
    "lost": (0, 2, 0, 2),
}


def every_code(scores: int) -> list[Code]:
    return list(product(range(1, scores + 1), repeat=3))


def name_of(group_map: GroupMap, code: Code) -> str:
    return group_map.names[int(group_map.table[code])]


def axes(codes: list[Code]) -> Axes:
    table = np.array(codes, dtype=np.int64).reshape(-1, 3)
    return Axes(r=table[:, 0], f=table[:, 1], m=table[:, 2])


def rounded_half_up(f: int, m: int) -> int:
    return int((f + m) / 2 + 0.5)


def rule(name: str, r: list[int] | None = None, f: list[int] | None = None, m: list[int] | None = None) -> RfmGroupRule:
    return RfmGroupRule(name=name, r=r, f=f, m=m)


# --- the built-in maps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_code_has_one_group_and_every_group_a_code(name: str) -> None:
    found = built_in(name)
    inner = found.table[1:, 1:, 1:]
    assert inner.shape == (found.scores,) * 3
    assert set(inner.ravel().tolist()) == set(range(len(found.names)))
    assert len(set(found.names)) == len(found.names)
    assert {-1} == set(found.table[0].ravel().tolist()) | set(found.table[:, 0].ravel()) | set(found.table[..., 0].flat)


def test_the_maps_have_ten_eleven_and_six_groups() -> None:
    assert built_in("grid").names == RFM_SEGMENTS
    assert built_in("eleven").names == ELEVEN_SEGMENTS
    assert built_in("six").names == SIX_SEGMENTS == tuple(PUBLISHED_SIX)
    assert [len(built_in(name).names) for name in BUILT_IN] == [10, 11, 6]


@pytest.mark.parametrize(
    ("r", "f", "segment"),
    [
        ("12", "12", "hibernating"),
        ("12", "34", "at_risk"),
        ("12", "5", "cant_lose"),
        ("3", "12", "about_to_sleep"),
        ("3", "3", "need_attention"),
        ("34", "45", "loyal_customers"),
        ("4", "1", "promising"),
        ("5", "1", "new_customers"),
        ("45", "23", "potential_loyalists"),
        ("5", "45", "champions"),
    ],
)
def test_the_grid_is_the_published_one_whatever_m_is(r: str, f: str, segment: str) -> None:
    grid = built_in("grid")
    assert {name_of(grid, (int(a), int(b), m)) for a in r for b in f for m in range(1, 6)} == {segment}


def test_the_six_groups_hold_all_27_codes_once_as_published() -> None:
    codes = " ".join(PUBLISHED_SIX.values()).split()
    assert len(codes) == 27
    assert sorted(codes) == ["".join(map(str, code)) for code in every_code(3)]
    six = built_in("six")
    for segment, theirs in PUBLISHED_SIX.items():
        assert {name_of(six, (int(r), int(f), int(m))) for r, f, m in theirs.split()} == {segment}


def test_every_code_of_the_eleven_lies_in_a_published_box_of_its_group() -> None:
    eleven = built_in("eleven")
    for r, f, m in every_code(5):
        r_low, r_high, low, high = PUBLISHED_ELEVEN[name_of(eleven, (r, f, m))]
        assert r_low <= r <= r_high, (r, f, m)
        assert low <= rounded_half_up(f, m) <= high, (r, f, m)


def test_in_the_published_order_four_of_the_eleven_would_have_nobody() -> None:
    found = {
        next(
            name
            for name, (r_low, r_high, low, high) in PUBLISHED_ELEVEN.items()
            if r_low <= r <= r_high and low <= rounded_half_up(f, m) <= high
        )
        for r, f, m in every_code(5)
    }
    assert set(ELEVEN_SEGMENTS) - found == {"new_customers", "promising", "cant_lose", "lost"}


@pytest.mark.parametrize(
    ("code", "segment"),
    [
        ((5, 5, 5), "champions"),
        ((4, 3, 4), "champions"),  # a mean of 3.5 is 4
        ((4, 4, 2), "loyal_customers"),
        ((5, 1, 1), "new_customers"),
        ((5, 1, 2), "potential_loyalists"),  # a mean of 1.5 is 2
        ((3, 1, 1), "promising"),
        ((2, 2, 2), "need_attention"),
        ((2, 1, 1), "about_to_sleep"),
        ((1, 3, 3), "at_risk"),
        ((1, 5, 2), "cant_lose"),
        ((1, 2, 2), "hibernating"),
        ((1, 1, 1), "lost"),
    ],
)
def test_the_eleven_round_the_mean_of_f_and_m_half_up(code: Code, segment: str) -> None:
    assert name_of(built_in("eleven"), code) == segment


def test_a_map_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        built_in("grid").table[1, 1, 1] = 0


# --- groups --------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(every_code(5)), max_size=40), st.randoms(use_true_random=False))
def test_permuting_the_rows_changes_nobodys_group(codes: list[Code], random: object) -> None:
    for name in ("grid", "eleven"):
        found = groups(built_in(name), axes(codes)).tolist()
        order = list(range(len(codes)))
        random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis hands out random.Random
        assert groups(built_in(name), axes([codes[i] for i in order])).tolist() == [found[i] for i in order]


def test_nobody_has_no_group() -> None:
    assert groups(built_in("six"), axes([])).tolist() == []


@pytest.mark.parametrize("code", [(0, 1, 1), (1, 1, 4)])
def test_scores_the_map_does_not_know_are_refused(code: Code) -> None:
    with pytest.raises(ValueError, match="the map from 1 to 3"):
        groups(built_in("six"), axes([(1, 1, 1), code]))


# --- which map -----------------------------------------------------------------------------------------------


def test_without_a_setting_three_scores_take_the_six_and_five_the_grid() -> None:
    assert map_for(None, 3) is built_in("six")
    assert map_for(None, 5) is built_in("grid")
    assert map_for("eleven", 5) is built_in("eleven")


@pytest.mark.parametrize(("setting", "scores"), [(None, 4), ("grid", 10), ("grid", 3), ("eleven", 3), ("six", 5)])
def test_a_map_for_another_number_of_scores_is_refused_with_those_that_fit(setting: str | None, scores: int) -> None:
    with pytest.raises(ConfigError, match=rf"the scheme gives 1 to {scores}; grid and eleven need five scores, six"):
        map_for(setting, scores)


def test_an_unknown_map_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rfm.map 'twelve' is unknown; known are grid, eleven and six"):
        map_for("twelve", 5)


def test_an_own_map_is_read_for_the_number_of_scores() -> None:
    own = RfmMapSettings(groups=[rule("good", r=[3, 4]), rule("bad", r=[1, 2])])
    found = map_for(own, 4)
    assert (found.scores, found.names) == (4, ("good", "bad"))
    assert name_of(found, (3, 1, 4)) == "good"
    with pytest.raises(ConfigError, match=r"25 \(511, 512, 513, 514, 515, …\) of 125 codes"):
        map_for(own, 5)


# --- a shop's own --------------------------------------------------------------------------------------------


def test_the_grid_can_be_written_as_a_map_of_ones_own() -> None:
    own = RfmMapSettings(
        groups=[
            rule("champions", r=[5], f=[4, 5]),
            rule("loyal_customers", r=[3, 4], f=[4, 5]),
            rule("potential_loyalists", r=[4, 5], f=[2, 3]),
            rule("new_customers", r=[5], f=[1]),
            rule("promising", r=[4], f=[1]),
            rule("need_attention", r=[3], f=[3]),
            rule("about_to_sleep", r=[3], f=[1, 2]),
            rule("at_risk", r=[1, 2], f=[3, 4]),
            rule("cant_lose", r=[1, 2], f=[5]),
            rule("hibernating", r=[1, 2], f=[1, 2]),
        ]
    )
    found = own_map(own, 5)
    assert found.names == RFM_SEGMENTS
    assert (found.table == built_in("grid").table).all()


def test_uncovered_codes_are_named_and_counted() -> None:
    own = RfmMapSettings(groups=[rule("good", r=[2, 3]), rule("bad", r=[1], f=[1, 2])])
    with pytest.raises(ConfigError) as refused:
        own_map(own, 3)
    assert str(refused.value) == (
        "carillon.yaml: rfm.map: 3 (131, 132, 133) of 27 codes (r, f, m) fit no group; widen one, or end with "
        "ordered: true and a group without r, f and m"
    )


def test_doubly_covered_codes_are_named_with_both_groups() -> None:
    own = RfmMapSettings(groups=[rule("all"), rule("best", r=[3], f=[3], m=[2, 3]), rule("new", r=[3], f=[1])])
    with pytest.raises(ConfigError) as refused:
        own_map(own, 3)
    assert str(refused.value).splitlines() == [
        "carillon.yaml: rfm.map: 2 (332, 333) fit both all and best; part them, or write ordered: true",
        "3 (311, 312, 313) fit both all and new; part them, or write ordered: true",
    ]


def test_codes_of_ten_scores_are_told_apart() -> None:
    own = RfmMapSettings(groups=[rule("most", r=list(range(1, 10))), rule("rest", r=[10], f=list(range(1, 10)))])
    with pytest.raises(ConfigError, match=r"10 \(10-10-1, 10-10-2, 10-10-3, 10-10-4, 10-10-5, …\) of 1000"):
        own_map(own, 10)


def test_in_an_ordered_map_the_first_that_fits_is_the_one() -> None:
    own = RfmMapSettings(ordered=True, groups=[rule("best", r=[3], f=[3]), rule("good", r=[2, 3]), rule("rest")])
    found = own_map(own, 3)
    assert [name_of(found, code) for code in ((3, 3, 1), (3, 1, 3), (2, 3, 3), (1, 3, 3))] == [
        "best",
        "good",
        "good",
        "rest",
    ]


def test_a_group_the_ones_before_it_leave_nothing_is_told() -> None:
    own = RfmMapSettings(ordered=True, groups=[rule("rest"), rule("best", r=[3])])
    with pytest.raises(ConfigError, match="best is never reached: all its codes fit groups before it; move it up"):
        own_map(own, 3)


def test_two_rules_of_one_name_are_one_group_and_may_overlap() -> None:
    own = RfmMapSettings(groups=[rule("good", r=[3]), rule("good", f=[3]), rule("rest", r=[1, 2], f=[1, 2])])
    found = own_map(own, 3)
    assert found.names == ("good", "rest")
    assert {name_of(found, (3, 3, 1)), name_of(found, (3, 1, 1)), name_of(found, (1, 3, 1))} == {"good"}


def test_scores_that_do_not_exist_are_told_once_each_with_all_else() -> None:
    own = RfmMapSettings(groups=[rule("good", r=[3, 4, 0]), rule("rest", r=[1])])
    with pytest.raises(ConfigError) as refused:
        own_map(own, 3)
    first, second = str(refused.value).splitlines()
    assert first == "carillon.yaml: rfm.map: good: r: scores go from 1 to 3, got 4, 0"
    assert second.startswith("9 (211, 212, 213, 221, 222, …) of 27 codes")


sides = st.none() | st.lists(st.integers(1, 3), min_size=1, max_size=3)
rules = st.lists(st.builds(rule, st.sampled_from("abc"), sides, sides, sides), min_size=1, max_size=5)


def fits(found: RfmGroupRule, code: Code) -> bool:
    return all(
        wanted is None or score in wanted for wanted, score in zip((found.r, found.f, found.m), code, strict=True)
    )


@given(rules, st.booleans(), st.booleans())
def test_an_own_map_is_taken_exactly_where_it_is_complete_and_without_overlap(
    listed: list[RfmGroupRule], ordered: bool, ended: bool
) -> None:
    if ended:
        listed = [*listed, rule("d")]
    holders = {code: [found.name for found in listed if fits(found, code)] for code in every_code(3)}
    firsts = {code: next((i for i, found in enumerate(listed) if fits(found, code)), None) for code in every_code(3)}
    sound = all(holders.values()) and (
        set(firsts.values()) == set(range(len(listed)))
        if ordered
        else all(len(set(names)) == 1 for names in holders.values())
    )
    own = RfmMapSettings(ordered=ordered, groups=listed)
    if not sound:
        with pytest.raises(ConfigError):
            own_map(own, 3)
        return
    found = own_map(own, 3)
    assert {code: name_of(found, code) for code in every_code(3)} == {code: names[0] for code, names in holders.items()}


# --- the page ------------------------------------------------------------------------------------------------


def section(title: str) -> str:
    return re.split(r"^#+ ", PAGE.split(f"### `{title}`", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("name", ["grid", "eleven"])
def test_the_page_shows_the_table_of_the_map(name: str) -> None:
    shown = {
        int(r): re.findall(r"`(\w+)`", cells)
        for r, cells in re.findall(r"^\| \*\*R (\d)\*\* \|(.+)$", section(name), flags=re.MULTILINE)
    }
    found = built_in(name)
    # On the diagonal F = M the mean of the two is F itself.
    assert shown == {r: [name_of(found, (r, f, f)) for f in range(1, 6)] for r in range(1, 6)}


def test_the_page_shows_the_codes_of_the_six() -> None:
    assert dict(re.findall(r"^\| `(\w+)` \| ([\d ]+) \|$", section("six"), flags=re.MULTILINE)) == PUBLISHED_SIX


def test_the_own_maps_of_the_page_are_sound_and_say_the_same(tmp_path: Path) -> None:
    found = []
    for text in re.findall(r"```yaml\nrfm:\n(.*?)```", PAGE, flags=re.DOTALL):
        path = tmp_path / "rfm.yaml"
        path.write_text(re.sub(r"^  ", "", text, flags=re.MULTILINE), encoding="utf-8")
        read = read_document(path, shown_as="docs/rfm.md").validate(RfmSettings)
        if isinstance(read.map, RfmMapSettings):
            found.append(own_map(read.map, read.scores))
    plain, ordered = found
    assert plain.names == ordered.names
    assert (plain.table == ordered.table).all()
