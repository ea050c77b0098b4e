"""What clusters are called, their profiles, and the rules that come near them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import ConfigError
from segments.cluster_names import Rule, profile, tree_rules, word
from segments.clusters import TRANSFORMS, Features, Fitted, assign, fit

NAMES = ("recency_days", "orders", "net")


def shop(seed: int = 1, per_group: int = 200) -> tuple[Features, Fitted]:
    """Return buyers in three groups (best, middling, lost) and the clusters found."""
    random = np.random.default_rng(seed)
    centres = np.array([[5.0, 40.0, 9000.0], [60.0, 8.0, 1200.0], [500.0, 1.0, 90.0]])
    values = np.repeat(centres, per_group, axis=0) * random.lognormal(0, 0.2, (3 * per_group, 3))
    values[:, :2] = np.maximum(np.round(values[:, :2]), 1)
    data = Features(NAMES, values)
    return data, fit(data, k=3, seed=1)


def euros(data: Features) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.round(data.values[:, 2] * 100).astype(np.int64)


def test_names_say_in_plain_words_what_sets_a_cluster_apart() -> None:
    data, found = shop()
    best, _, lost = profile(found.model, found.labels, data, euros(data))
    assert best.name == "very frequent, high value, just bought"
    assert lost.name == "very infrequent, very low value, lapsing"
    assert best.key == "c1"


def test_profiles_are_the_figures_of_the_members() -> None:
    fitted_on, found = shop()
    # A month later everybody has ordered more: gaps are from the buyers of today, not from those of the fit.
    data = Features(NAMES, fitted_on.values * [1, 1.5, 1.5])
    labels = assign(found.model, data)
    money = euros(data)
    profiles = profile(found.model, labels, data, money)
    for position, facts in enumerate(profiles):
        mine = labels == position
        assert facts.size == mine.sum()
        assert facts.share == pytest.approx(mine.mean())
        assert facts.revenue_minor == money[mine].sum()
        assert facts.revenue_share == pytest.approx(money[mine].sum() / money.sum())
        assert facts.medians == {name: float(np.median(data.values[mine, column])) for column, name in enumerate(NAMES)}
        scaled = np.column_stack([s.apply(c) for s, c in zip(found.model.scales, data.values.T, strict=True)])
        expected = scaled[mine].mean(axis=0) - scaled.mean(axis=0)
        assert list(facts.gaps.values()) == pytest.approx(expected.tolist())
        assert facts.top == sorted(NAMES, key=lambda name: -abs(facts.gaps[name]))
        nearest = np.argsort(((scaled[mine] - found.model.places[position]) ** 2).sum(axis=1))[:3]
        assert facts.examples == np.flatnonzero(mine)[nearest].tolist()
    assert sum(facts.share for facts in profiles) == pytest.approx(1)
    assert json.loads(json.dumps([facts.to_json() for facts in profiles]))[0]["name"] == profiles[0].name


def test_examples_are_named_by_the_ids_given() -> None:
    data, found = shop()
    ids = np.arange(len(data)) * 7 + 100
    plain = profile(found.model, found.labels, data, euros(data))
    named = profile(found.model, found.labels, data, euros(data), ids=ids)
    assert [[row * 7 + 100 for row in facts.examples] for facts in plain] == [facts.examples for facts in named]


def test_missing_values_are_left_out_of_medians() -> None:
    data, found = shop()
    values = data.values.copy()
    values[found.labels == 2, 1] = np.nan
    values[::9, 0] = np.nan
    profiles = profile(found.model, found.labels, Features(NAMES, values), euros(data))
    assert profiles[2].medians["orders"] is None
    assert profiles[0].medians["recency_days"] == float(np.nanmedian(values[found.labels == 0, 0]))


def test_who_is_in_no_cluster_counts_nowhere() -> None:
    data, found = shop()
    some = np.where(np.arange(len(data)) % 4 == 0, -1, found.labels)
    profiles = profile(found.model, some, data, euros(data))
    assert sum(facts.size for facts in profiles) == (some >= 0).sum()
    kept = np.flatnonzero(some >= 0)
    again = profile(found.model, some[kept], data.take(kept), euros(data)[kept], ids=kept)
    for one, other in zip(profiles, again, strict=True):
        assert one.gaps == pytest.approx(other.gaps)
        assert replace(one, gaps={}) == replace(other, gaps={})


def test_an_empty_cluster_is_called_so_and_no_revenue_has_no_share() -> None:
    data, found = shop()
    first = np.where(found.labels == 1, 0, found.labels)
    profiles = profile(found.model, first, data, np.zeros(len(data), dtype=np.int64))
    assert profiles[1].name == "empty"
    assert profiles[1].size == 0
    assert profiles[1].medians == dict.fromkeys(NAMES)
    assert profiles[1].examples == profiles[1].top == []
    assert {facts.revenue_share for facts in profiles} == {None}


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 1000))
def test_no_two_clusters_are_called_the_same(k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    data = Features(NAMES, np.round(random.lognormal(2, 0.6, (120, 3))))
    found = fit(data, k=k, seed=1)
    names = [facts.name for facts in profile(found.model, found.labels, data, euros(data))]
    assert len(set(names)) == k
    assert all(names)


def test_two_of_a_kind_are_told_apart_by_their_keys() -> None:
    data, found = shop()
    twins = replace(found.model, keys=("c1", "c2", "c3", "c4"), centroids=(*found.model.centroids, (0.0, 0.0, 0.0)))
    labels = np.where((found.labels == 2) & (np.arange(len(data)) % 2 == 0), 3, found.labels)
    values = data.values.copy()
    values[found.labels == 2] = [500.0, 1.0, 90.0]
    names = [facts.name for facts in profile(twins, labels, Features(NAMES, values), euros(data))]
    assert names[2].endswith(" (c3)")
    assert names[3].endswith(" (c4)")
    assert names[2][:-5] == names[3][:-5]


@pytest.mark.parametrize("feature", [*TRANSFORMS, "visits_per_week"])
def test_every_feature_has_four_different_words(feature: str) -> None:
    words = [word(feature, gap) for gap in (-2.0, -0.7, 0.7, 2.0)]
    assert len(set(words)) == 4
    assert "_" not in "".join(words)


def test_the_words_of_recency_are_not_turned_round() -> None:
    assert word("recency_days", -2) == "just bought"
    assert word("recency_days", 2) == "lapsed"


def test_rules_part_plain_groups_and_read_well() -> None:
    data, found = shop()
    rules = tree_rules(found.model, found.labels, data)
    assert rules.fidelity > 0.99
    assert rules.unreached == []
    assert {rule.key for rule in rules.rules} == {"c1", "c2", "c3"}
    assert all(condition.split()[1] in (">", "<=") for rule in rules.rules for condition in rule.conditions)
    assert json.loads(json.dumps(rules.to_json()))["fidelity"] == rules.fidelity


def caught_by(rule: Rule, data: Features) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return whom a rule catches, read as a person reads it."""
    caught = np.ones(len(data), dtype=bool)
    for condition in rule.conditions:
        name, sign, number = condition.split()
        column = data.values[:, data.names.index(name)]
        border = float(number.replace(",", ""))
        caught &= column > border if sign == ">" else column <= border
    return caught


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 500), st.integers(1, 4))
def test_the_fidelity_is_that_of_the_rules_as_printed_and_each_buyer_meets_one(seed: int, depth: int) -> None:
    random = np.random.default_rng(seed)
    data = Features(NAMES, np.column_stack([random.integers(0, 400, 300), *random.lognormal(3, 1, (2, 300))]))
    found = fit(data, k=4, seed=1)
    rules = tree_rules(found.model, found.labels, data, depth=depth)
    reached = np.zeros(len(data), dtype=int)
    right = 0
    for rule in rules.rules:
        caught = caught_by(rule, data)
        hits = caught & (found.labels == found.model.keys.index(rule.key))
        assert rule.size == caught.sum()
        assert rule.right == pytest.approx(hits.sum() / caught.sum())
        reached += caught
        right += int(hits.sum())
    assert (reached == 1).all()
    assert rules.fidelity == pytest.approx(right / len(data))
    assert sum(rule.share for rule in rules.rules) == pytest.approx(1)
    assert len(rules.rules) <= 2**depth


def test_rules_do_not_depend_on_the_order_of_the_buyers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segments.cluster_names._TREE_ROWS", 200)
    data, found = shop()
    order = np.random.default_rng(3).permutation(len(data))
    assert tree_rules(found.model, found.labels[order], data.take(order)) == tree_rules(found.model, found.labels, data)


def test_whole_numbers_are_parted_at_whole_numbers() -> None:
    data, found = shop()
    rules = tree_rules(found.model, found.labels, data.select(NAMES))
    borders = [c for rule in rules.rules for c in rule.conditions if c.startswith(("orders", "recency_days"))]
    assert borders
    assert all("." not in border for border in borders)


def test_a_border_between_neighbouring_whole_numbers_is_found_exactly() -> None:
    data, found = shop()
    values = np.column_stack([data.values[:, 0], np.tile(np.arange(1.0, 7.0), 100), data.values[:, 2]])
    labels = np.where(values[:, 1] <= 3, 0, 1)
    rules = tree_rules(found.model, labels, Features(NAMES, values))
    assert {rule.key: rule.conditions for rule in rules.rules} == {"c1": ["orders <= 3"], "c2": ["orders > 3"]}
    assert rules.fidelity == 1.0
    assert rules.unreached == ["c3"]


def test_labels_that_do_not_fit_are_refused() -> None:
    data, found = shop()
    with pytest.raises(ConfigError, match="599 labels, 600 rows of features and 600 revenues"):
        profile(found.model, found.labels[1:], data, euros(data))
    with pytest.raises(ConfigError, match="a label lies outside the 3 clusters"):
        profile(found.model, found.labels + 1, data, euros(data))
    with pytest.raises(ConfigError, match="nobody is in any cluster"):
        tree_rules(found.model, np.full(len(data), -1), data)
