"""Clusters: laws of fitting and assigning, the refresh protocol, and data that cannot be clustered."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from kernel.errors import ConfigError
from kernel.settings import Feature
from segments import cluster_scaling, clusters
from segments.cluster_choice import choose_k, distinct_rows, nearest, one_thread
from segments.cluster_import import adopt
from segments.clusters import DEFAULT_FEATURES, TRANSFORMS, ClusterModel, Features, Fitted, assign, fit

NAMES = ("recency_days", "orders", "net")


def features(rows: Any, names: tuple[str, ...] = NAMES) -> Features:
    return Features(names, np.array(rows, dtype=np.float64).reshape(-1, len(names)))


def groups(*, per_group: int = 150, seed: int = 1, shift: float = 1.0) -> tuple[Features, np.ndarray[Any, Any]]:
    """Return three groups of buyers that nobody could mistake, and who belongs to which: best, middling, lost."""
    random = np.random.default_rng(seed)
    centres = np.array([[5.0, 40.0, 9000.0], [40.0, 8.0, 1200.0], [400.0, 1.0, 90.0]])
    rows = np.repeat(centres, per_group, axis=0) * random.lognormal(0, 0.15, (3 * per_group, 3)) * shift
    return features(rows), np.repeat(np.arange(3), per_group)


def keys(fitted: Fitted) -> list[str]:
    return [fitted.model.keys[label] for label in fitted.labels]


rows = st.lists(
    st.tuples(st.integers(0, 400), st.integers(1, 9), st.integers(-500, 5000) | st.sampled_from([0, 100, 100000])),
    min_size=8,
    max_size=60,
)


def fitted_or_reject(data: Features, k: int = 3, **options: Any) -> Fitted:
    try:
        return fit(data, k=k, seed=1, **options)
    except ConfigError:
        assume(False)
        raise


def test_each_feature_of_the_settings_has_a_transform_and_the_default_ones_are_among_them() -> None:
    assert set(get_args(Feature)) == set(TRANSFORMS)
    assert set(DEFAULT_FEATURES) <= set(TRANSFORMS)


@settings(max_examples=60, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_permuting_the_rows_changes_nobodys_cluster(data: list[Any], random: Any) -> None:
    first = fitted_or_reject(features(data))
    order = list(range(len(data)))
    random.shuffle(order)
    again = fit(features([data[i] for i in order]), k=3, seed=1)
    assert again.model == first.model
    assert again.labels.tolist() == first.labels[order].tolist()


@settings(max_examples=5, deadline=None)
@given(st.randoms(use_true_random=False))
def test_permuting_the_rows_changes_neither_the_choice_of_k_nor_a_cluster(random: Any) -> None:
    data, _ = groups(per_group=40)
    order = list(range(len(data)))
    random.shuffle(order)
    first = fit(data, k=None, seed=1, choose=range(3, 5))
    again = fit(data.take(np.array(order)), k=None, seed=1, choose=range(3, 5))
    assert again.report == first.report
    assert again.labels.tolist() == first.labels[order].tolist()


@settings(max_examples=60, deadline=None)
@given(rows, st.permutations([0, 1, 2]))
def test_permuting_the_numbers_of_clusters_changes_nobodys_key(data: list[Any], order: list[int]) -> None:
    first = fitted_or_reject(features(data))
    turned = replace(
        first.model,
        keys=tuple(first.model.keys[i] for i in order),
        centroids=tuple(first.model.centroids[i] for i in order),
    )
    assert [turned.keys[label] for label in assign(turned, features(data))] == keys(first)
    moved = features([(days + 20, orders + 1, money * 1.2) for days, orders, money in data])
    labels = np.array([order.index(label) for label in first.labels.tolist()])
    one = fit(moved, k=3, seed=1, previous=first.model, previous_labels=first.labels)
    other = fit(moved, k=3, seed=1, previous=turned, previous_labels=labels)
    assert keys(one) == keys(other)
    assert one.report == other.report


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(2, 6))
def test_fitting_again_on_the_same_data_moves_nobody(data: list[Any], k: int) -> None:
    first = fitted_or_reject(features(data), k=k)
    again = fit(features(data), k=None, seed=1, previous=first.model)
    assert keys(again) == keys(first)
    assert again.report["start"] == "unchanged"
    assert again.report["held"] is None
    assert again.report["previous"]["moved"] == 0


@settings(max_examples=40, deadline=None)
@given(rows)
def test_a_model_survives_json_without_loss(data: list[Any]) -> None:
    model = fitted_or_reject(features(data)).model
    assert ClusterModel.from_json(json.loads(json.dumps(model.to_json()))) == model


@settings(max_examples=40, deadline=None)
@given(rows)
def test_everybody_is_nearest_to_the_centre_of_their_own_cluster(data: list[Any]) -> None:
    found = fitted_or_reject(features(data))
    scaled = cluster_scaling.apply_scales(found.model.scales, features(data))
    distances = ((scaled[:, None, :] - found.model.places[None]) ** 2).sum(axis=2)
    own = distances[np.arange(len(data)), found.labels]
    assert (own <= distances.min(axis=1) + 1e-12).all()


def test_groups_that_nobody_could_mistake_are_found_and_the_richest_is_c1() -> None:
    data, truth = groups()
    found = fit(data, k=3, seed=1)
    assert adjusted_rand_score(truth, found.labels) == 1.0
    assert found.model.keys == ("c1", "c2", "c3")
    assert {key: keys(found)[place] for key, place in (("best", 0), ("lost", -1))} == {"best": "c1", "lost": "c3"}
    assert found.report["explained"] > 0.95
    assert found.warnings == []


def test_a_fit_is_as_good_as_ten_starts_of_scikit_learn() -> None:
    random = np.random.default_rng(3)
    data = features(random.lognormal(3, 1, (3000, 3)))
    found = fit(data, k=5, seed=1)
    with one_thread():
        oracle = KMeans(5, n_init=10, random_state=8).fit(cluster_scaling.apply_scales(found.model.scales, data))
    assert found.model.inertia == pytest.approx(oracle.inertia_, rel=0.005)


def test_a_fit_on_a_sample_of_starts_is_as_good_as_one_on_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    data = features(random.lognormal(3, 1, (4000, 3)))
    whole = fit(data, k=4, seed=1)
    monkeypatch.setattr("segments.cluster_choice.START_ROWS", 500)
    sampled = fit(data, k=4, seed=1)
    assert sampled.model.inertia == pytest.approx(whole.model.inertia, rel=0.01)


def test_money_in_cents_and_in_euros_makes_the_same_clusters() -> None:
    data, _ = groups()
    cents = features(data.values * [1, 1, 100])
    assert fit(cents, k=4, seed=1).labels.tolist() == fit(data, k=4, seed=1).labels.tolist()


def test_the_number_of_groups_is_chosen_where_another_would_part_one_of_them_by_lot() -> None:
    """Three groups alike to the last grain: which of them a fourth cluster cuts in two is chance."""
    grains = np.random.default_rng(5).normal(0, 0.2, (200, 2))
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [1.5, 2.6]])
    data = features((centres[:, None, :] + grains).reshape(-1, 2), ("a", "b"))
    found = fit(data, k=None, seed=1, transforms={"a": "none", "b": "none"}, choose=range(3, 6))
    assert found.report["k"] == 3
    assert found.report["how"] == "chosen"
    three, four, five = found.report["choices"]
    assert three["accepted"]
    assert three["stability_mean"] > 0.99
    assert not four["accepted"]
    assert not five["accepted"]


def test_of_several_stable_numbers_the_largest_is_chosen() -> None:
    grains = np.random.default_rng(5).normal(0, 0.05, (80, 2))
    centres = np.array([[0.0, 0.0], [0.5, 0.0], [6.0, 0.0], [0.0, 9.0], [6.0, 14.0]])
    data = features((centres[:, None, :] + grains).reshape(-1, 2), ("a", "b"))
    found = fit(data, k=None, seed=1, transforms={"a": "none", "b": "none"}, choose=range(3, 7))
    accepted = [choice["k"] for choice in found.report["choices"] if choice["accepted"]]
    assert len(accepted) > 1
    assert found.report["k"] == max(accepted)


def test_centres_carried_into_another_scaling_stay_where_they_were() -> None:
    data, _ = groups()
    scales, _ = cluster_scaling.fit_scales(data, {})
    richer, _ = cluster_scaling.fit_scales(features(data.values * [1, 2, 9]), {}, scales)
    wide = [tuple(replace(scale, low=-1e9, high=1e9) for scale in these) for these in (scales, richer)]
    places = [cluster_scaling.apply_scales(these, data) for these in wide]
    assert cluster_scaling.carry_over(places[0], scales, richer) == pytest.approx(places[1])


def test_a_handful_of_giants_is_no_reason_for_a_cluster_of_their_own() -> None:
    data, _ = groups(per_group=330)
    giants = features([(1.0, 4000.0, 9e6)] * 10)
    both = Features(NAMES, np.vstack([data.values, giants.values]))
    found = fit(both, k=None, seed=1)
    assert min(found.report["sizes"].values()) >= 0.03 * len(both)


def test_where_no_number_is_stable_the_least_bad_is_taken_and_said() -> None:
    random = np.random.default_rng(2)
    noise = features(random.uniform(1, 2, (300, 6)), ("a", "b", "c", "d", "e", "f"))
    found = fit(noise, k=None, seed=1, choose=range(6, 9))
    assert not any(choice["accepted"] for choice in found.report["choices"])
    assert any("no number of clusters from 6 to 8 is stable" in warning for warning in found.warnings)


def test_near_the_border_more_bootstraps_decide() -> None:
    scaled = np.random.default_rng(1).normal(0, 1, (300, 2))
    scaled[:, 0] += np.repeat([0, 4, 8], 100)
    _, choices, _ = choose_k(scaled, range(3, 6), seed=1)
    sure, doubtful, _ = choices
    assert sure.bootstraps == 20
    assert abs(doubtful.stability_mean - 0.85) < 0.03
    assert doubtful.bootstraps > 20


def test_a_refit_keeps_the_number_the_scaler_and_the_keys() -> None:
    first = fit(groups()[0], k=3, seed=1)
    later, truth = groups(seed=2, shift=1.05)
    again = fit(later, k=None, seed=1, previous=first.model)
    assert again.report["how"] == "kept"
    assert again.report["keys"] == {"kept": ["c1", "c2", "c3"], "new": [], "gone": []}
    assert again.model.scales == first.model.scales
    assert not again.report["rescaled"]
    assert again.report["held"] is None
    assert [keys(again)[int(np.argmax(truth == group))] for group in range(3)] == ["c1", "c2", "c3"]


def test_where_the_scaler_no_longer_fits_it_is_made_anew_and_keys_still_last() -> None:
    first = fit(groups()[0], k=3, seed=1)
    later, truth = groups(seed=2)
    richer = features(later.values * [1, 1, 60])
    again = fit(richer, k=None, seed=1, previous=first.model, previous_labels=first.labels)
    assert again.report["rescaled"]
    assert again.model.scales != first.model.scales
    assert [keys(again)[int(np.argmax(truth == group))] for group in range(3)] == ["c1", "c2", "c3"]
    assert again.report["previous"]["moved"] == 0


def test_a_warm_start_follows_the_buyers() -> None:
    random = np.random.default_rng(4)
    data = features(random.lognormal(2, 1, (2000, 3)))
    first = fit(data, k=4, seed=1)
    later = features(data.values * random.lognormal(0.05, 0.2, (2000, 3)))
    again = fit(later, k=4, seed=1, previous=first.model)
    assert again.report["start"] == "warm"
    assert again.report["inertias"]["warm"] < again.report["inertias"]["unchanged"]


def test_a_fit_from_scratch_is_taken_where_the_centres_we_have_are_stuck() -> None:
    """Four heaps at the corners of a long oblong: parting its long sides from each other is a trap."""
    grains = np.random.default_rng(2).normal(0, 0.05, (100, 2))
    corners = np.array([[-5.0, -1.0], [-5.0, 1.0], [5.0, -1.0], [5.0, 1.0]])
    heaps = (corners[:, None, :] + grains).reshape(-1, 2) * [1, 0.6]
    data = features(np.vstack([heaps, [[0.0, 9.0]], [[0.0, -9.0]]]), ("a", "b"))
    found = fit(data, k=2, seed=1, transforms={"a": "none", "b": "none"})
    across = replace(found.model, centroids=((0.0, -0.6), (0.0, 0.6)))
    again = fit(data, k=2, seed=1, previous=across)
    assert again.report["start"] == "cold"
    assert again.report["inertias"]["cold"] < 0.98 * again.report["inertias"]["warm"]
    assert again.report["held"] is not None


def test_keys_that_end_are_never_given_again() -> None:
    data, _ = groups()
    five = fit(data, k=5, seed=1)
    three = fit(data, k=3, seed=1, previous=five.model)
    gone = set(three.report["keys"]["gone"])
    assert len(gone) == 2
    six = fit(data, k=6, seed=1, previous=three.model)
    assert not gone & set(six.model.keys)
    assert {int(key[1:]) for key in six.report["keys"]["new"]} == {6, 7, 8}
    assert six.model.next_key == 9


def test_another_number_of_clusters_is_held() -> None:
    data, _ = groups()
    held = fit(data, k=4, seed=1, previous=fit(data, k=3, seed=1).model).report["held"]
    assert "there were 3 clusters and are 4 now" in held


def test_other_features_are_held_and_keys_go_on_by_the_people_in_them() -> None:
    data, truth = groups()
    first = fit(data, k=3, seed=1)
    other = fit(data.select(("orders", "net")), k=3, seed=1, previous=first.model, previous_labels=first.labels)
    assert "the features or their transforms changed" in other.report["held"]
    assert [keys(other)[int(np.argmax(truth == group))] for group in range(3)] == ["c1", "c2", "c3"]
    strangers = fit(data.select(("orders", "net")), k=3, seed=1, previous=first.model)
    assert strangers.model.keys == ("c4", "c5", "c6")


def test_a_centre_that_moved_far_is_held() -> None:
    data, truth = groups()
    first = fit(data, k=3, seed=1)
    scattered = data.values.copy()
    scattered[truth == 1] *= [6, 1, 1]
    held = fit(features(scattered), k=3, seed=1, previous=first.model).report["held"]
    assert "the centre of c2 moved by +" in held
    assert "standard deviations of recency_days" in held


def test_too_many_movers_are_held_and_the_limit_is_the_callers() -> None:
    data, _ = groups()
    first = fit(data, k=3, seed=1)
    elsewhere = np.where(np.arange(len(data)) % 5 == 0, (first.labels + 1) % 3, first.labels)
    strict = fit(data, k=3, seed=1, previous=first.model, previous_labels=elsewhere, largest_move=0.1)
    assert "20% of the buyers would change their cluster, more than 10%" in strict.report["held"]
    lax = fit(data, k=3, seed=1, previous=first.model, previous_labels=elsewhere, largest_move=0.5)
    assert "would change their cluster" not in (lax.report["held"] or "")


def test_newcomers_without_a_previous_cluster_count_as_nobodys_move() -> None:
    data, _ = groups()
    first = fit(data, k=3, seed=1)
    before = np.where(np.arange(len(data)) < 100, -1, first.labels)
    report = fit(data, k=3, seed=1, previous=first.model, previous_labels=before).report
    assert report["previous"]["common"] == len(data) - 100
    assert report["previous"]["moved"] == 0


def test_a_missing_value_stands_for_the_median_of_those_who_have_one() -> None:
    data, _ = groups()
    gaps = data.values.copy()
    gaps[::7, 1] = np.nan
    found = fit(features(gaps), k=3, seed=1)
    median = float(np.nanmedian(gaps[:, 1]))
    assert found.model.scales[1].fill == median
    filled = np.where(np.isnan(gaps), median, gaps)
    assert assign(found.model, features(filled)).tolist() == found.labels.tolist()


def test_a_feature_that_says_nothing_is_left_out_with_a_warning() -> None:
    data, _ = groups()
    names = (*NAMES, "products", "gap_days")
    more = np.column_stack([data.values, np.full(len(data), 3.0), np.full(len(data), np.nan)])
    found = fit(features(more, names), k=3, seed=1)
    assert found.model.names == NAMES
    assert found.warnings == [
        "products is the same for nearly everybody (3) and was left out",
        "gap_days is missing everywhere and was left out",
    ]


def test_features_are_found_by_name_in_any_order_among_others() -> None:
    data, _ = groups()
    found = fit(data, k=3, seed=1)
    turned = Features(("net", "x", "orders", "recency_days"), data.values[:, [2, 0, 1, 0]])
    assert assign(found.model, turned).tolist() == found.labels.tolist()
    with pytest.raises(ConfigError, match="the clusters were made with net, which is not among the features given"):
        assign(found.model, data.select(("orders", "recency_days")))


def test_nobody_at_all_can_be_assigned_but_not_fitted() -> None:
    nobody = features([])
    assert assign(fit(groups()[0], k=3, seed=1).model, nobody).tolist() == []
    with pytest.raises(ConfigError, match="nobody has bought yet"):
        fit(nobody, k=3, seed=1)


@pytest.mark.parametrize(
    ("data", "k", "words"),
    [
        ([(1, 1, 1)], 3, "no feature tells these buyers apart"),
        ([(1, 1, 1)], None, "no feature tells these buyers apart"),
        ([(5, 2, 70)] * 900, 3, "no feature tells these buyers apart"),
        ([(1, 1, 10), (9, 4, 800)] * 50, 3, "3 clusters cannot be made of 100 buyers of whom 2 differ"),
        ([(1, 1, 10), (9, 4, 800)] * 50, None, "only 2 different buyers, too few for 3 clusters"),
        ([(n, n + 1, n) for n in range(50)], 1, "1 clusters cannot be made"),
        ([(-5, 1, 1), (3, 2, 8)], 2, "feature recency_days holds -5, and log1p needs values above -1"),
        ([(1, 1, np.inf), (3, 2, 8)], 2, "feature net holds an infinite value"),
    ],
)
def test_data_that_cannot_be_clustered_are_refused_with_the_reason(data: Any, k: int | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        fit(features(data), k=k, seed=1)


def test_few_buyers_and_small_clusters_are_told() -> None:
    data, _ = groups(per_group=20)
    assert any("only 60 buyers" in warning for warning in fit(data, k=3, seed=1).warnings)
    many, _ = groups()
    lonely = Features(NAMES, np.vstack([many.values, [[2000.0, 1.0, 1e6]] * 5]))
    assert any("clusters of less than 3%" in warning for warning in fit(lonely, k=4, seed=1).warnings)


def test_as_many_clusters_as_different_buyers_are_possible() -> None:
    found = fit(features([(1, 1, 10), (9, 4, 800), (300, 2, 50)] * 70), k=3, seed=1)
    assert sorted(found.report["sizes"].values()) == [70, 70, 70]
    assert found.model.inertia == pytest.approx(0, abs=1e-20)
    assert fit(features([(1, 1, 10), (9, 4, 800), (300, 2, 50)] * 70), k=None, seed=1).report["k"] == 3


def test_amounts_that_go_into_billions_and_below_zero_do_no_harm() -> None:
    random = np.random.default_rng(1)
    money = random.choice([-1e15, -3.0, 0.0, 1e-9, 5.0, 1e15, 1e300], 500)
    data = features(np.column_stack([random.integers(0, 900, 500), random.integers(1, 99, 500), money]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit(data, k=4, seed=1)
    assert np.isfinite(found.model.places).all()


def test_ids_decide_nothing_but_must_differ() -> None:
    data, _ = groups(per_group=70)
    one = fit(data, k=3, seed=1, ids=np.arange(len(data)))
    other = fit(data, k=3, seed=1, ids=np.arange(len(data))[::-1] * 7)
    assert one.labels.tolist() == other.labels.tolist()
    with pytest.raises(ConfigError, match="give each once"):
        fit(data, k=3, seed=1, ids=np.zeros(len(data), dtype=np.int64))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "has format 99"),
        ({"keys": ["c1", "c1", "c2"]}, "damaged"),
        ({"keys": ["c1"]}, "damaged"),
        ({"centroids": [[1.0], [2.0], [3.0]]}, "damaged"),
        ({"centroids": None}, "cannot be read"),
        ({"seed": "x"}, "cannot be read"),
        ({"features": [{"name": "orders"}]}, "cannot be read"),
    ],
)
def test_a_damaged_model_is_refused(change: dict[str, Any], words: str) -> None:
    data = fit(groups()[0], k=3, seed=1).model.to_json()
    with pytest.raises(ConfigError, match=words):
        ClusterModel.from_json({**data, **change})


@pytest.mark.parametrize(("part", "value"), [("sd", 0.0), ("unit", 0.0), ("mean", float("nan")), ("transform", "sqrt")])
def test_a_damaged_scale_is_refused(part: str, value: Any) -> None:
    data = fit(groups()[0], k=3, seed=1).model.to_json()
    data["features"][0][part] = value
    with pytest.raises(ConfigError, match="feature recency_days of the saved cluster model"):
        ClusterModel.from_json(data)


def test_of_equally_near_centroids_the_first_is_taken_in_every_block() -> None:
    column = np.tile([-1.0, 0.0, 1.0], 20_000)
    labels, distances = nearest([column], np.array([[-1.0], [1.0]]))
    assert labels[:3].tolist() == [0, 0, 1]
    assert (labels.reshape(-1, 3) == labels[:3]).all()
    assert distances[:3].tolist() == [0.0, 1.0, 0.0]


def test_different_rows_are_counted_though_equal_ones_come_first() -> None:
    assert distinct_rows(np.array([[0.0]] * 9000 + [[1.0]] * 9000 + [[2.0]]), 3) == 3
    assert distinct_rows(np.array([[0.0], [1.0]] * 500), 3) == 2


def test_imported_labels_become_clusters_with_their_own_names() -> None:
    data, truth = groups()
    words = np.array(["gold", "silver", "lost"])[truth].tolist()
    found = adopt(data, words)
    assert found.model.keys == ("gold", "lost", "silver")
    assert [found.model.keys[label] for label in found.labels] == words
    assert found.report["reproduced"] == 1.0
    assert found.report["how"] == "imported"
    assert assign(found.model, data).tolist() == found.labels.tolist()
    assert ClusterModel.from_json(json.loads(json.dumps(found.model.to_json()))) == found.model
    assert json.loads(json.dumps(found.report)) == found.report


def test_buyers_without_an_imported_label_have_none_and_do_not_pull_a_centre() -> None:
    data, truth = groups()
    words: list[str | None] = np.array(["gold", "silver", "lost"])[truth].tolist()
    words[0], words[200] = None, ""
    found = adopt(data, words)
    assert found.labels[[0, 200]].tolist() == [-1, -1]
    assert found.report["unlabelled"] == 2
    assert found.model.rows == len(data) - 2
    assert found.model.keys[assign(found.model, data)[0]] == "gold"


def test_imported_labels_that_the_features_do_not_give_back_are_told() -> None:
    data, _ = groups()
    by_lot = np.random.default_rng(1).choice(["a", "b"], len(data)).tolist()
    found = adopt(data, by_lot)
    assert found.report["reproduced"] < 0.8
    assert any("of the imported labels" in warning for warning in found.warnings)


def test_an_import_that_turns_everything_round_is_held() -> None:
    data, truth = groups()
    words = np.array(["gold", "silver", "lost"])
    first = adopt(data, words[truth].tolist())
    same = adopt(data, words[truth].tolist(), previous=first.model, previous_labels=first.labels)
    assert same.report["held"] is None
    turned = adopt(data, words[(truth + 1) % 3].tolist(), previous=first.model, previous_labels=first.labels)
    assert "100% of the buyers would change their cluster" in turned.report["held"]
    unasked = adopt(data, words[(truth + 1) % 3].tolist(), previous=first.model)
    assert unasked.report["held"] == turned.report["held"]
    assert "the centre of gold moved" in turned.report["held"]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a"] * 9, "9 labels were given for 60"),
        (["a"] * 60, "name 1 different"),
        ([str(n % 101) for n in range(60 * 3)], ""),
    ],
)
def test_imports_that_make_no_sense_are_refused(labels: list[str], words: str) -> None:
    data, _ = groups(per_group=20 if len(labels) != 180 else 60)
    with pytest.raises(ConfigError, match=words or "name 101 different clusters; an import needs from 2 to 100"):
        adopt(data, labels)


def test_a_later_fit_gives_no_key_twice_though_an_import_lay_between() -> None:
    data, truth = groups()
    own = fit(data, k=3, seed=1)
    imported = adopt(data, np.array(["x", "y", "z"])[truth].tolist(), previous=own.model, previous_labels=own.labels)
    assert imported.model.next_key == own.model.next_key
    assert not set(fit(data, k=5, seed=1, previous=imported.model).report["keys"]["new"]) & {"c1", "c2", "c3"}


def test_the_public_words_of_the_room_are_there() -> None:
    assert set(clusters.__all__) >= {"Features", "ClusterModel", "Fitted", "fit", "assign"}
