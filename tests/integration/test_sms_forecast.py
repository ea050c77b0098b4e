"""What `plan` says of texts: parts, money by country, dear letters, and the countries' rules."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from campaigns import sms_forecast
from campaigns.applying import apply
from campaigns.eligibility import check
from campaigns.firing import fire_due
from campaigns.judging import Wait
from campaigns.planning import plan
from cli.main import app
from store.engine import open_database, reading
from store.schema import migrate
from store.tables import messages
from tests.integration.campaigning import NOW, SETTINGS, add_account, add_contact, make_workspace, put
from tests.integration.returning import rows

TEXT = """\
audience: {segment: everybody}
schedule: {at: "2026-12-01 09:00", window: {hours: "07:00-20:00"}}
steps:
  - sms: nudge
"""
PRICED = SETTINGS.replace('price: "0.05"', 'prices: {"44": "0.04", "1": "0.0079", default: "0.07"}')
ASCII_120 = "a" * 120


def people(engine: Engine, british: int, american: int, chinese: int = 0) -> None:
    numbers = [f"+4479000{n:05}" for n in range(british)] + [f"+1212555{n:04}" for n in range(american)]
    numbers += [f"+86138001{n:05}" for n in range(chinese)]
    for place, number in enumerate(numbers):
        add_contact(engine, f"c{place}", phone=number, timezone="Europe/London")


def test_a_forecast_counts_parts_and_money_by_country(engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, settings=PRICED, hello=TEXT)
    put(tmp_path, "templates/nudge.txt", ASCII_120 + " {{ contact.first_name }} Reply STOP to opt out" + "b" * 20)
    people(engine, british=5, american=3, chinese=2)
    [planned] = plan(engine, workspace, None, now=NOW)
    [text] = planned.texts
    assert (text.step, text.gateway, text.messages, text.rendered, text.exact) == (1, "texts", 10, 10, True)
    assert (text.parts, text.encodings) == (20, {"gsm7": 10})
    assert {country: (bill.messages, bill.parts, bill.cost) for country, bill in text.countries.items()} == {
        "GB": (5, 10, Decimal("0.40")),
        "US": (3, 6, Decimal("0.0474")),
        "CN": (2, 4, Decimal("0.28")),
    }
    assert planned.estimate.cost == {"GBP": 73}
    assert planned.estimate.sms_parts == 20
    assert text.dear == ()


def test_dear_letters_are_named_with_their_place_and_what_they_cost(sqlite_engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, settings=PRICED, hello=TEXT)
    put(tmp_path, "templates/nudge.txt", "Hi {{ contact.first_name }}\n\nDon’t miss — " + "a" * 100 + "\n")
    people(sqlite_engine, british=4, american=0)
    add_contact(sqlite_engine, "z", phone="+447900099999", first_name="François")
    [planned] = plan(sqlite_engine, workspace, None, now=NOW)
    [text] = planned.texts
    assert (text.parts, text.parts_if_plain, text.encodings) == (10, 5, {"ucs2": 5})
    assert [(one.path, one.letter, one.line, one.column, one.instead, one.texts) for one in text.dear] == [
        ("templates/nudge.txt", "’", 3, 4, "'", 5),
        ("templates/nudge.txt", "—", 3, 12, "-", 5),
        ("", "ç", 0, 0, "c", 1),
    ]
    assert "step 1: letters outside the GSM alphabet (’ — ç) make 10 parts of what could be 5" in planned.warnings
    words = "’ (Right single quotation mark) is outside the GSM alphabet: 67 letters in a part, not 153 (write ')"
    assert f"templates/nudge.txt:3:4: {words}" in planned.warnings


def test_many_texts_are_forecast_by_a_spread_of_them(
    sqlite_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sms_forecast, "RENDERED", 10)
    workspace = make_workspace(tmp_path, settings=PRICED, hello=TEXT)
    people(sqlite_engine, british=16, american=6)
    [planned] = plan(sqlite_engine, workspace, None, now=NOW)
    [text] = planned.texts
    assert (text.messages, text.rendered, text.exact, text.parts) == (22, 10, False, 22)
    assert {country: bill.cost for country, bill in text.countries.items()} == {
        "GB": Decimal("0.64"),
        "US": Decimal("0.0474"),
    }


def test_a_number_without_a_price_is_told(sqlite_engine: Engine, tmp_path: Path) -> None:
    settings = SETTINGS.replace('price: "0.05"', 'prices: {"44": "0.04"}')
    workspace = make_workspace(tmp_path, settings=settings, hello=TEXT)
    people(sqlite_engine, british=2, american=1)
    [planned] = plan(sqlite_engine, workspace, None, now=NOW)
    assert planned.texts[0].countries["US"].cost is None
    assert "step 1: gateway texts has no price for US; they are not in the cost" in planned.warnings


def test_a_route_costs_the_mean_of_its_gateways_by_their_weights(sqlite_engine: Engine, tmp_path: Path) -> None:
    other = '  other: {type: http, url: "http://127.0.0.1:9/send", form: {to: "{to}", text: "{text}"}, price: "0.08"}\n'
    settings = PRICED + other + "routes:\n  mixed: {gateways: {texts: 3, other: 1}}\n"
    workspace = make_workspace(tmp_path, settings=settings, hello=TEXT + "    gateway: mixed\n")
    people(sqlite_engine, british=2, american=0)
    [planned] = plan(sqlite_engine, workspace, None, now=NOW)
    assert planned.texts[0].countries["GB"].cost == Decimal("0.10")


def test_the_countries_texted_ask_for_what_is_missing(sqlite_engine: Engine, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, settings=PRICED, hello=TEXT)
    people(sqlite_engine, british=0, american=3)
    [planned] = plan(sqlite_engine, workspace, None, now=NOW)
    told = [note for note in planned.warnings if note.startswith("step 1, 3 to US: ")]
    assert len(told) == 2
    assert "07:00-20:00" in told[0]
    assert "how to opt out" in told[1]


def test_validate_says_what_the_gateways_country_asks_for_with_line_and_column(tmp_path: Path) -> None:
    settings = SETTINGS.replace('price: "0.05"', 'price: "0.05", country: CN, counting: cn')
    make_workspace(tmp_path, settings=settings, hello=TEXT)
    put(tmp_path, "templates/nudge.txt", "新品 https://acme.example/{{ account.name }}\n")
    done = CliRunner().invoke(
        app,
        ["validate", "--workspace", str(tmp_path), "--json"],
        env={"CARILLON_SECRET_KEY": "k" * 64},
    )
    warned = json.loads(done.stdout)["warnings"]
    assert {(one["path"], one["line"]) for one in warned} == {("templates/nudge.txt", 1), ("campaigns/hello.yaml", 4)}
    words = " | ".join(one["message"] for one in warned)
    assert all(part in words for part in ("from 08:00-21:00 only", "signature", "opt out", "personal links"))


def test_plan_tells_it_in_words_and_in_json(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, settings=PRICED, hello=TEXT.replace("2026", "2099"))
    put(tmp_path, "templates/nudge.txt", "Don’t miss it\n")
    engine = open_database(workspace.database_url)
    migrate(engine)
    people(engine, british=2, american=1)
    engine.dispose()
    arguments = ["plan", "hello", "--workspace", str(tmp_path)]
    environment = {"CARILLON_SECRET_KEY": "k" * 64}
    said = CliRunner().invoke(app, arguments, env=environment).stdout
    assert "step 1 by SMS 3 parts of 3 texts (3 in UCS-2)" in said
    assert "to GB       2 texts, 2 parts, 0.08" in said
    assert "templates/nudge.txt:1:4: ’ (Right single quotation mark), in 3 of 3 texts: write '" in said
    [planned] = json.loads(CliRunner().invoke(app, [*arguments, "--json"], env=environment).stdout)
    [text] = planned["texts"]
    assert text["countries"]["GB"] == {"messages": 2, "parts": 2, "cost": "0.080000"}
    assert text["dear"][0]["instead"] == "'"


@pytest.mark.parametrize(
    ("number", "account_zone", "opens"),
    [
        ("+12125550100", None, datetime(2026, 12, 1, 12, 0, tzinfo=UTC)),  # New York, by the number
        ("+12125550100", "Asia/Tokyo", None),  # 18:00 there: the account says so
        ("+18005550100", None, None),  # nobody can say: the campaign's zone
    ],
)
def test_quiet_hours_are_those_of_the_number_where_nobody_says_better(
    engine: Engine, tmp_path: Path, number: str, account_zone: str | None, opens: datetime | None
) -> None:
    workspace = make_workspace(tmp_path, hello=TEXT)
    add_contact(engine, "c", add_account(engine, "A", timezone=account_zone), phone=number)
    apply(engine, workspace, None, now=NOW)
    fire_due(engine, workspace, now=NOW)
    [(message,)] = rows(engine, messages, "id")
    with reading(engine) as connection:
        verdict = check(connection, [message], now=NOW)[message]
    assert (verdict.until if isinstance(verdict, Wait) else None) == opens
