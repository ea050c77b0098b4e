"""Random rules of the segment language, every leaf and every branch, as plain data."""

from __future__ import annotations

import random
from typing import Any

from kernel.vocabulary import RFM_SEGMENTS
from tests.integration.segment_worlds import CAMPAIGNS, KEYS, PRODUCTS, SNAPSHOTS, STAGES, WORDS

Rule = dict[str, Any]

RELATIONS = {
    "any_contact": "contact",
    "any_colleague": "contact",
    "parent": "account",
    "any_child": "account",
    "any_sibling": "account",
}
"""Whom each relation leads to."""


def random_rule(rng: random.Random, subject: str, depth: int) -> Rule:
    """Return a rule about accounts or contacts, at most `depth` branches deep."""
    if not depth or rng.random() < 0.4:
        return random_leaf(rng, subject, references=depth > 0)
    key = rng.choice(["all", "any", "not", "at_least", "relation"])
    if key == "not":
        return {"not": random_rule(rng, subject, depth - 1)}
    if key == "relation":
        known = [word for word in RELATIONS if word != "any_colleague" or subject == "contact"]
        word = rng.choice(known)
        return {word: random_rule(rng, RELATIONS[word], depth - 1)}
    parts = [random_rule(rng, subject, depth - 1) for _ in range(rng.randint(1, 3))]
    return {key: {"n": rng.randint(1, len(parts)), "of": parts}} if key == "at_least" else {key: parts}


def random_leaf(rng: random.Random, subject: str, *, references: bool, kind: str | None = None) -> Rule:
    """Return one leaf, of a kind or of any."""
    kinds = [*MAKERS, "attribute", "attribute", "orders", "orders", "orders", "engagement", "never_bought", "everyone"]
    kinds += ["segment"] if references else []
    kinds = [one for one in kinds if subject == "contact" or one not in ("consent", "role")]
    kind = kind or rng.choice(kinds)
    if kind in ("never_bought", "everyone"):
        return {kind: True}
    if kind == "segment":
        return {"segment": rng.choice(_named(subject))}
    return {kind: MAKERS[kind](rng, subject)}


def _named(subject: str) -> list[str]:
    return list(SNAPSHOTS) if subject == "contact" else ["account-base"]


def _borders(rng: random.Random, values: list[Any]) -> Rule:
    low, high = sorted((rng.choice(values), rng.choice(values)), key=float)
    if (
        rng.random() < 0.3 and float(high) > float(low) + 1
    ):  # Further apart: borders that exclude each other are refused.
        return {rng.choice(["gt", "gte"]): low, rng.choice(["lt", "lte"]): high}
    return {rng.choice(["eq", "gt", "gte", "lt", "lte"]): rng.choice(values)}


def _maybe(rng: random.Random, values: list[Any]) -> Rule:
    return rng.choice([{}, _borders(rng, values)])


def _whose(rng: random.Random, subject: str) -> Rule:
    return rng.choice([{}, {"of": "account"}, *([{"of": "contact"}] if subject == "contact" else [])])


def _period(rng: random.Random) -> Rule:
    return rng.choice([{}, {"within": "30d"}, {"within": "1d"}, {"between": ["2026-01-01", "2026-06-14"]}])


def _ago(rng: random.Random) -> Rule:
    return rng.choice([{"within": "30d"}, {"older_than": "1d"}, {"within": "30d", "older_than": "1d"}])


def _some(rng: random.Random, options: Rule) -> Rule:
    """Return one to three of the keys."""
    return {key: options[key] for key in rng.sample(list(options), rng.randint(1, min(3, len(options))))}


def _make_orders(rng: random.Random, subject: str) -> Rule:
    plain = ["count", "days_since_first", "days_since_last", "products"]
    money = ["sum", "average", "min", "max", "first", "last"]
    measure = rng.choice([*plain, *money, "quantity"])
    values: list[Any] = [0, 10, "25.00", -10, 17.5] if measure in money else [0, 1, 2, 7, 30]
    values = [0, 1, 2.5, 7.1] if measure == "quantity" else values
    rule = {"measure": measure, **_borders(rng, values), **_period(rng), **_whose(rng, subject)}
    if rng.random() < 0.3:
        rule["product"] = rng.sample([*PRODUCTS, "x'; --"], rng.randint(1, 3))
    if rng.random() < 0.2:
        rule["category"] = rng.choice(["tea", ["cups", "tea"], "none"])
    if rng.random() < 0.2:
        rule["kind"] = rng.choice(["return", ["order", "cancellation"], "adjustment"])
    if rng.random() < 0.2:
        rule["status"] = rng.choice(["cancelled", "any", "standing"])
    return rule


def _make_events(rng: random.Random, subject: str) -> Rule:
    rule: Rule = {"name": rng.choice(["demo", "visit"]), **_period(rng), **_whose(rng, subject)}
    measure = rng.choice(["", "", "count", "sum", "average", "min", "max", "days_since_first", "days_since_last"])
    if measure in ("", "count"):
        rule |= _maybe(rng, [0, 1, 2])
    elif measure.startswith("days"):
        rule |= _borders(rng, [0, 1, 7, 30])
    else:
        rule |= _borders(rng, [0, 10, "25.00", "3.33"])
    if measure:
        rule["measure"] = measure
    if rng.random() < 0.3:
        rule["where"] = [{"property": rng.choice([*KEYS, "deep.inner"]), **_json_tests(rng)} for _ in range(2)]
    return rule


def _make_engagement(rng: random.Random, subject: str) -> Rule:
    did = rng.choice(["sent", "delivered", "opened", "clicked", "bounced", "complained", "unsubscribed", "replied"])
    rule: Rule = {"did": did, **_period(rng), **_whose(rng, subject)}
    if rng.random() < 0.3:
        rule |= {"measure": rng.choice(["days_since_first", "days_since_last"]), **_borders(rng, [0, 1, 7, 30])}
    else:
        rule |= _maybe(rng, [0, 1, 2, 3])
    if rng.random() < 0.3:
        rule["channel"] = rng.choice(["email", "sms"])
    if rng.random() < 0.3:
        rule["campaign"] = rng.choice([CAMPAIGNS, "spring", "none"])
    if did in ("opened", "clicked") and rng.random() < 0.5:
        rule["machines"] = True
    return rule


def _make_opportunities(rng: random.Random, subject: str) -> Rule:
    rule: Rule = _whose(rng, subject)
    if rng.random() < 0.4:
        rule |= {"measure": "sum", **_borders(rng, [0, 10, 1000])}
    else:
        rule |= _maybe(rng, [0, 1, 2])
    options = {
        "stage": rng.choice(["won", STAGES[:2]]),
        "not_stage": rng.choice(["lead", ["won", "none"]]),
        "days_in_stage": _borders(rng, [0, 1, 7, 30]),
        "value": _borders(rng, [0, 10, "1000.00"]),
    }
    return rule | (_some(rng, options) if rng.random() < 0.8 else {})


def _make_stock(rng: random.Random, subject: str) -> Rule:
    options = {
        "on_hand": _borders(rng, [0, 5, 12.5]),
        "days_of_stock": _borders(rng, [0, 30, 90, 7.5]),
        "turnover": _borders(rng, [0, 1, 2.5, 12]),
        "restocked_within": rng.choice(["1d", "30d", "400d"]),
    }
    rule = _some(rng, options) | _whose(rng, subject) | _maybe(rng, [0, 1, 2])
    if rng.random() < 0.4:
        rule["bought_within"] = rng.choice(["30d", "365d"])
    if rng.random() < 0.5:
        rule["sales_over"] = rng.choice(["30d", "365d", "36h"])
    if rng.random() < 0.2:
        rule["product"] = rng.sample(PRODUCTS, 2)
    if rng.random() < 0.2:
        rule["category"] = "tea"
    return rule


def _make_rfm(rng: random.Random, subject: str) -> Rule:
    options = {
        "segment": rng.sample(RFM_SEGMENTS, 4),
        "previous": rng.choice([rng.sample(RFM_SEGMENTS, 3), "champions"]),
        **{axis: _borders(rng, [1, 2, 3, 4, 5]) for axis in "rfm"},
        "since": _ago(rng),
        "moved_by": rng.choice(["time", ["own_action", "new"]]),
    }
    return {**_some(rng, options), **_whose(rng, subject)}


def _make_cluster(rng: random.Random, subject: str) -> Rule:
    options = {"key": rng.choice(["c1", ["c1", "c3"]]), "previous": rng.choice(["c2", ["c1"]]), "since": _ago(rng)}
    return {**_some(rng, options), **_whose(rng, subject)}


def _make_lifetime(rng: random.Random, subject: str) -> Rule:
    money = {key: _borders(rng, [0, 10, "25.00"]) for key in ("clv", "order_value", "historic")}
    numbers = {"p_alive": _borders(rng, [0, 0.5, 1]), "expected_orders": _borders(rng, [1.5, 3])}
    expected = {"next_order": {"in_next": rng.choice(["30d", "300d"])}}
    return {**_some(rng, money | numbers | expected), **_whose(rng, subject)}


def _make_cadence(rng: random.Random, subject: str) -> Rule:
    return {**_borders(rng, [0, 1, 1.5, 2, 60]), **_whose(rng, subject)}


def _make_consent(rng: random.Random, subject: str) -> Rule:
    return {"channel": rng.choice(["email", "sms"]), "status": rng.choice(["granted", "withdrawn", "none"])}


def _make_role(rng: random.Random, subject: str) -> Any:
    return rng.choice(["buyer", ["buyer", "owner"], ["x'; --"]])


def _make_membership(rng: random.Random, subject: str) -> Rule:
    options = {
        "entered_within": rng.choice(["1d", "30d"]),
        "left_within": rng.choice(["1d", "30d"]),
        "for_at_least": rng.choice(["1d", "30d"]),
        "on": rng.choice(["2026-06-14", "2026-05-16", "2027-01-01"]),
    }
    rule = {"segment": rng.choice(_named(subject)), **(_some(rng, options) if rng.random() < 0.8 else {})}
    if "on" in rule:
        rule.pop("for_at_least", None)
    return rule


def _make_bucket(rng: random.Random, subject: str) -> Rule:
    start = rng.choice(["0%", "25%", "0.5"])
    return {"salt": rng.choice(["a", "x'; --"]), "share": rng.choice(["50%", "0.25", "1%"]), "from": start} | _whose(
        rng, subject
    )


def _make_attribute(rng: random.Random, subject: str) -> Rule:
    own = ["name", "country"] if subject == "account" else ["first_name", "role", "email"]
    hops = ["", "parent.", "parent.parent."] if subject == "account" else ["", "account.", "account.parent."]
    hop = rng.choice(hops)
    if hop == "account.":
        own = ["name", "country"]
    elif hop:
        own = ["name"]
    kind = rng.choice(["text", "json", "json", "relation", "instant"])
    if kind == "relation":
        return {"name": rng.choice(hops[1:]).rstrip("."), "exists": rng.choice([True, False])}
    if kind == "instant":
        tests = [{rng.choice(["gt", "gte", "lt", "lte"]): "2026-06-14"}, _relative(rng)]
        return {"name": f"{hop}created_at", **rng.choice(tests)}
    if kind == "text":
        return {"name": hop + rng.choice(own), **_text_tests(rng)}
    path = rng.choice([*KEYS, "deep.inner", "none"])
    return {"name": f"{hop}attributes.{path}", **_json_tests(rng)}


def _relative(rng: random.Random) -> Rule:
    return {rng.choice(["within", "older_than", "in_next"]): rng.choice(["30d", "1d", "12h"])}


def _json_tests(rng: random.Random) -> Rule:
    tests: list[Rule] = [
        _text_tests(rng),
        {rng.choice(["eq", "ne", "contains"]): rng.choice([1, 2.5, True, False, 0])},
        {rng.choice(["gt", "gte", "lt", "lte"]): rng.choice([1, 2.5, 0, "2026-01-01"])},
        {rng.choice(["in", "not_in"]): [1, "vip", True]},
        _relative(rng),
    ]
    return rng.choice(tests)


def _text_tests(rng: random.Random) -> Rule:
    word = rng.choice([word for word in WORDS if word])
    tests: list[Rule] = [
        {rng.choice(["eq", "ne", "contains", "starts_with", "ends_with"]): word},
        {rng.choice(["in", "not_in"]): rng.sample(WORDS, 3)},
        {"exists": rng.choice([True, False])},
    ]
    return rng.choice(tests)


MAKERS = {
    "attribute": _make_attribute,
    "role": _make_role,
    "orders": _make_orders,
    "events": _make_events,
    "engagement": _make_engagement,
    "opportunities": _make_opportunities,
    "stock": _make_stock,
    "rfm": _make_rfm,
    "cluster": _make_cluster,
    "lifetime": _make_lifetime,
    "cadence": _make_cadence,
    "consent": _make_consent,
    "membership": _make_membership,
    "bucket": _make_bucket,
}
"""What makes the values of each kind of leaf; `segment`, `never_bought` and `everyone` need none."""
