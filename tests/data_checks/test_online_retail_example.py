"""The page docs/online-retail.md, as a person would go through it: commands typed, outputs compared, numbers measured.

The commands run in a copy of the example with both real sheets; what the page shows below them must come out. Every
number in its sentences and tables must be one this module measures, and its pictures must be what the commands draw.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.pages import Block, blocks, difference, prose, typed

pytestmark = [pytest.mark.data, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("CARILLON_DATA") or ROOT.parent / "shared" / "data")
FILES = ("online_retail_2009-2010.parquet", "online_retail_2010-2011.parquet")
EXAMPLE = ROOT / "examples" / "online-retail"
PAGE = (ROOT / "docs" / "online-retail.md").read_text(encoding="utf-8")
BLOCKS = blocks(PAGE)
PICTURES = ROOT / "docs" / "pictures"
AUTUMN, WINTER, EARLIER = "python on.py 2011-09-11 ", "python on.py 2011-12-11 ", "python on.py 2010-12-11 "
SEPTEMBER_MS, DECEMBER_MS, YEAR_BEFORE_MS = 1315695600000, 1323561600000, 1292025600000
"""Midnight in London on 11 September 2011, 11 December 2011 and 11 December 2010."""
YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The page, played: output by command, and the folders of the shop in 2011 and in 2010."""

    outputs: dict[str, subprocess.CompletedProcess[str]]
    shop: Path
    earlier: Path


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Type the whole page, from the first command to the last."""
    for name in FILES:
        if not (DATA / name).is_file():
            pytest.fail(f"{DATA / name} is absent: put the data files there, or name their folder in $CARILLON_DATA")
    shop, earlier = (tmp_path_factory.mktemp(name) / "shop" for name in ("now", "earlier"))
    shutil.copytree(EXAMPLE, shop, ignore=shutil.ignore_patterns(".carillon", "__pycache__"))
    outputs: dict[str, subprocess.CompletedProcess[str]] = {}
    for block in BLOCKS[1:]:  # The first copies the folder, which is done.
        for command in block.commands:
            if command.startswith(AUTUMN) and not earlier.exists():
                shutil.copytree(shop, earlier)  # "On another copy of the folder": with the invoices, and nothing else.
            outputs[command] = run(command, earlier if command.startswith(EARLIER) else shop)
    return Played(outputs=outputs, shop=shop, earlier=earlier)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return typed(command, folder, CARILLON_DATA=str(DATA))


def told(played: Played, command: str, folder: Path | None = None) -> Any:
    """Return the JSON of a command of 11 December 2011, or of another folder and day."""
    done = run(f"{WINTER if folder is None else EARLIER}{command} --json", folder or played.shop)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows(folder: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(folder / ".carillon" / "carillon.db")
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


# --- what comes out ---


def test_every_command_of_the_page_does_its_work(played: Played) -> None:
    assert len(played.outputs) >= 15
    assert {command: done.stderr for command, done in played.outputs.items() if done.returncode} == {}


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.shown], ids=lambda block: block.commands[-1])
def test_what_comes_out_is_what_the_page_shows(played: Played, block: Block) -> None:
    command = block.commands[-1]
    assert difference(block.shown, played.outputs[command].stdout, fitted=" lifetime " in command) == ""


def test_the_segment_on_the_page_is_the_file_of_the_example() -> None:
    for name, text in re.findall(r"```yaml\n# segments/([\w-]+)\.yaml\n(.*?)```", PAGE, re.DOTALL):
        assert (EXAMPLE / "segments" / f"{name}.yaml").read_text(encoding="utf-8") == text
    assert PAGE.count("```yaml") == 1


def test_the_page_names_every_segment_of_the_example() -> None:
    files = {path.stem for path in (EXAMPLE / "segments").glob("*.yaml")}
    assert set(re.findall(r"(?m)^\| `([\w-]+)` \| [^|]+\| [\d,]+ \|", PAGE.split("## 7.")[1])) == files


def test_no_model_is_refused_or_held_on_either_day(played: Played) -> None:
    states = {(one["kind"], one["version"]): one["state"] for one in told(played, "models")}
    kinds = ("clusters", "lifetime", "rfm")
    assert states == {(kind, 1): "retired" for kind in kinds} | {(kind, 2): "active" for kind in kinds}


# --- the numbers in the sentences ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the sentences of the page tell of."""

    played: Played
    rfm: dict[str, Any]
    clusters: dict[str, Any]
    lifetime: dict[str, Any]
    formulas: dict[str, Any]
    champions: dict[str, Any]


@pytest.fixture(scope="module")
def measured(played: Played) -> Measured:
    return Measured(
        played=played,
        rfm=told(played, "rfm"),
        clusters=told(played, "clusters explain"),
        lifetime=told(played, "lifetime show"),
        formulas=told(played, "lifetime formulas"),
        champions=told(played, "segments diff champions --from 2011-09-11 --by reason"),
    )


def millions(minor: float) -> str:
    return f"£{minor / 1e8:.2f}m"


def sentences_on_the_data(found: Measured) -> Iterator[str]:
    shop = found.played.shop
    ((invoices,), (customers,), (buyers,)) = (
        rows(shop, query)[0]
        for query in (
            "SELECT count(*) FROM orders",
            "SELECT count(*) FROM accounts",
            "SELECT count(DISTINCT account_id) FROM orders WHERE kind = 'order'",
        )
    )
    counts = found.played.outputs["carillon import invoices"].stdout
    imported = dict(re.findall(r"(?m)^  (\w[\w ]*\w)  +([\d,]+)", counts))
    assert 0.2 < int(imported["without customer"].replace(",", "")) / int(imported["rows"].replace(",", "")) < 0.3
    yield f"**unchanged {imported['unchanged']}.** Both files hold 1 to 9 December 2010."
    yield f"{invoices:,} invoices in all, of {customers:,} customers"
    yield f"**without customer {imported['without customer']}.** A quarter of the lines"
    yield f"**rejected {imported['rejected']}.**"
    yield f"{buyers:,} of the {customers:,} customers ever placed"
    yield f"the other {customers - buyers} only sent something back"
    ((autumn, all_orders),) = rows(
        shop,
        "SELECT sum(strftime('%m', ordered_at / 1000, 'unixepoch') IN ('09', '10', '11')), count(*)"
        " FROM orders WHERE kind = 'order' AND account_id IS NOT NULL",
    )
    yield f"Of all orders of known customers {100 * autumn / all_orders:.0f} % fall"


def sentences_on_rfm(found: Measured) -> Iterator[str]:
    groups = found.rfm["groups"]
    money = sum(row["n"] * row["monetary_mean"] for row in groups.values() if row["n"])
    scored = found.rfm["scored"]

    def shares(name: str) -> tuple[str, str]:
        row = groups[name]
        return f"{row['n'] / scored:.0%}"[:-1], f"{row['n'] * row['monetary_mean'] / money:.0%}"[:-1]

    best, worst = shares("champions"), shares("hibernating")
    top = groups["champions"]
    yield (
        f"there are {top['n']} champions; on average they ordered {top['recency_mean']:.0f} days ago,"
        f" {top['frequency_mean']:.0f} times within the year, for {top['monetary_mean']:,.0f} pounds"
    )
    yield f"The champions are {best[0]} % of the buyers and brought {best[1]} % of the year's sales."
    yield f"The hibernating are {worst[0]} % of the buyers and brought {worst[1]} %."
    once = re.search(r"the value 1 covers (\d+)%", " ".join(found.rfm["warnings"]))
    assert once
    yield f"{once.group(1)} % of these customers ordered exactly once"
    yield f"and over {found.rfm['window'].removesuffix('d')} days. That is why {scored:,} customers have scores"
    yield f"and not all {found.lifetime['report']['subjects']:,}."


def sentences_on_moves(found: Measured) -> Iterator[str]:
    moved = found.champions
    reasons = moved["reasons"]
    entered, left = reasons["entered"], reasons["left"]
    yield f"{moved['size_before']} champions in September, {moved['size_after']} in December"
    yield f"{entered['own_action']} became champions by ordering, {entered['new']} were new;"
    yield f"{left['time']} dropped out because they let time pass. {left['cutoff']} did nothing wrong"
    yield f'Do not write "we miss you" to those {left["cutoff"]}.'
    assert len(moved["entered"]) > moved["size_after"] / 2  # "More than half of them are other people."
    yield "no order in the 375 days before September"
    drawn = found.played.outputs[f"{WINTER}picture migration --out migration.png --from 2011-09-11 --to 2011-12-11"]
    assert "stayed" in drawn.stdout
    ((then,),) = rows(found.played.shop, "SELECT parameters FROM models WHERE kind = 'rfm' AND version = 2")
    yield f"September had only {champions_in_september(found.played.shop, json.loads(then))} champions"


def champions_in_september(shop: Path, model: dict[str, Any]) -> int:
    """Count who was a champion on 11 September by the cut-offs of December, in the plainest way."""
    cutoffs = model["cutoffs"]
    found = rows(
        shop,
        "SELECT (:now - max(ordered_at)) / 86400000, count(*) FROM orders WHERE kind = 'order' AND ordered_at < :now"
        " AND ordered_at >= :now - 375 * 86400000 AND account_id IS NOT NULL"
        " AND (cancelled_at IS NULL OR cancelled_at >= :now) GROUP BY account_id".replace(":now", str(SEPTEMBER_MS)),
    )
    latest, often = cutoffs["recency_days"][0], cutoffs["orders"][1]  # R 5, and F 4 or 5.
    return sum(days <= latest and orders >= often for days, orders in found)


def sentences_on_clusters(found: Measured) -> Iterator[str]:
    fit, profiles = found.clusters["fit"], {one["key"]: one for one in found.clusters["profiles"]}
    yield f"tried 3 to 8 clusters and took {fit['k']}, the largest number"
    ((kept,),) = rows(found.played.shop, "SELECT report FROM models WHERE kind = 'clusters' AND version = 1")
    choices = json.loads(kept)["fit"]["choices"]
    assert [one["k"] for one in choices] == [3, 4, 5, 6, 7, 8]
    assert max(one["k"] for one in choices if one["accepted"]) == fit["k"]
    before = fit["previous"]
    yield f"{before['moved']} customers, {100 * before['moved_share']:.1f} %, changed cluster by that"
    for key, one in profiles.items():
        middle = one["medians"]
        yield (
            f"| `{key}` | {one['name']} | {one['size']:,} | {100 * one['revenue_share']:.1f} % | {middle['orders']:.0f}"
            f" | {middle['net']:,.0f} | {middle['recency_days']:.0f} |"
        )
    best = [profiles["c1"], profiles["c2"]]
    people, money = (100 * sum(one[share] for one in best) for share in ("share", "revenue_share"))
    yield f"`c1` and `c2` are {people:.0f} % of the customers and {money:.0f} % of the money"
    ((quiet,),) = rows(
        found.played.shop,
        "SELECT count(*) FROM profiles WHERE cluster = 'c3' AND rfm_segment IN ('hibernating', 'at_risk')",
    )
    assert 140 < profiles["c3"]["medians"]["gap_days"] < 165  # "Every five months."
    yield f"RFM calls {quiet} of these {profiles['c3']['size']} hibernating or at risk"
    yield f"`c6` sends back {100 * profiles['c6']['medians']['return_share']:.0f} % of what it orders"
    assert len(found.clusters["tree"]["rules"]) == 8
    yield f"reproduce {100 * found.clusters['tree']['fidelity']:.0f} % of who is where"
    yield "`cluster: {key: [c1, c2]}`"


def sentences_on_lifetime(found: Measured) -> Iterator[str]:
    model, totals, past = found.lifetime["report"], found.lifetime["totals"], found.lifetime["calibration"]
    orders = past["orders"]
    yield f"it believes {totals['alive']:,.0f} of {model['subjects']:,} are still there"
    yield f"the correlation of the two is {model['correlation']:.2f}"
    yield f"Carillon hid the last {orders['length']:.0f} days from the model"
    yield (
        f"It promised {orders['predicted']:,.0f} orders, and {orders['actual']:,} came:"
        f" {100 * orders['error']:.1f} % too many. In money it was the other way round:"
        f" {millions(past['predicted_minor'])} promised, {millions(past['actual_minor'])} came."
    )
    once, *middle, most = orders["groups"]
    assert all(one["predicted_mean"] > one["actual_mean"] for one in (once, *middle))
    over = [one["predicted_mean"] / one["actual_mean"] for one in (once, *middle)]
    assert max(over) == over[0]
    assert [one["repeats"] for one in middle] == [1, 2, 3, 4, 5, 6]
    yield f"(correlation {orders['correlation']:.2f}); everybody with up to six repeat orders"
    yield f"{once['predicted_mean']:.2f} promised, {once['actual_mean']:.2f} came"
    assert 0.02 < 1 - most["predicted_mean"] / most["actual_mean"] < 0.03
    yield "The best customers are right within 3 %."
    yield f"promises {orders['naive_predicted']:,.0f} orders and misses a customer by {orders['naive_mae']:.2f} orders"
    yield f"the model misses by {orders['mae']:.2f}."
    yield f"the {millions(totals['clv_minor'])} that the model promises for 2012"
    yield f"{100 * found.formulas['retention_measured']:.0f} % of those who bought in the year before"
    yield "The margin is set to 100 %"
    (one,) = told(found.played, "lifetime show 13090")
    low, high = one["intervals"]["outcome"]["orders"]
    least, most_money = (f"{money / 100:,.0f}" for money in one["intervals"]["outcome"]["contribution_minor"])
    yield f"between {low} and {high} orders, between £{least} and £{most_money}"


def sentences_on_the_year_before(found: Measured) -> Iterator[str]:
    """What was refused on 11 December 2010, and what became of these customers, counted in the orders."""
    folder = found.played.earlier
    shown = told(found.played, "lifetime show", folder)
    assert (shown["state"], shown["calibration"]) == ("refused", None)
    came = (
        "FROM orders o JOIN profiles p ON p.subject = 'account' AND p.subject_id = o.account_id"
        " WHERE o.ordered_at >= ? AND o.ordered_at < ?"
    )
    year = (YEAR_BEFORE_MS, DECEMBER_MS)
    ((money,),) = rows(folder, f"SELECT sum(o.net_minor) {came}", *year)
    ((people, days),) = rows(
        folder,
        "SELECT count(DISTINCT account_id), count(*) FROM"
        f" (SELECT DISTINCT o.account_id, o.ordered_at / 86400000 {came} AND o.kind = 'order')",
        *year,
    )
    yield (
        f"what became of the {shown['fitted_on']:,} who had bought by then: {people:,} of them ordered in the year"
        f" after, on {days:,} days, and it came to {millions(money)}."
    )
    ((first,),) = rows(folder, f"SELECT sum(o.net_minor) {came}", YEAR_BEFORE_MS - YEAR_MS, YEAR_BEFORE_MS)
    ((second,),) = rows(found.played.shop, f"SELECT sum(o.net_minor) {came}", *year)
    kept = money / first
    yield (
        f"December 2010 had brought {millions(first)} within a year, and {millions(money)} in the year after,"
        f" {100 * kept:.0f} % of it. Today's have brought {millions(second)} within a year; if history repeats itself,"
        f" {millions(second * kept)} will follow."
    )


def sentences_on_segments(found: Measured) -> Iterator[str]:
    shop = found.played.shop
    members = (
        "FROM segment_members m JOIN segments s ON s.id = m.segment_id WHERE s.name = ? AND m.valid_from <= ?"
        " AND (m.valid_to IS NULL OR m.valid_to > ?)"
    )
    table = dict(re.findall(r"(?m)^\| `([\w-]+)` \| ([^|]+) \| [\d,]+ \| [\d,]+ \|", PAGE))
    sizes: dict[str, tuple[int, ...]] = {}
    for name, who in table.items():
        sizes[name] = tuple(
            rows(shop, f"SELECT count(*) {members}", name, day, day)[0][0] for day in (SEPTEMBER_MS, DECEMBER_MS)
        )
        assert max(sizes[name]) > 0
        yield f"| `{name}` | {who} | {sizes[name][0]:,} | {sizes[name][1]:,} |"
    ((again,),) = rows(
        shop,
        f"SELECT count(*) {members} AND EXISTS (SELECT 1 FROM orders o WHERE o.account_id = m.subject_id"
        " AND o.kind = 'order' AND o.ordered_at >= ? AND o.ordered_at < ?)",
        *("win-back", SEPTEMBER_MS, SEPTEMBER_MS, SEPTEMBER_MS, DECEMBER_MS),
    )
    quiet = sizes["win-back"][0]
    yield (
        f"Of the {quiet} who were in `win-back` in September, {again} had ordered again by December,"
        f" {100 * again / quiet:.0f} %"
    )
    yield f"written to all {quiet} would"
    christmas = told(found.played, "segments diff christmas-shops --from 2011-09-11")
    yield f"{len(christmas['left'])} of {christmas['size_before']} came by themselves"
    both = told(found.played, "segments overlap win-back cooling-key-shops")
    ((_, shared), _) = both["counts"]
    yield f"{shared} of the {both['sizes'][both['segments'].index('cooling-key-shops')]} `cooling-key-shops`"
    (one,) = told(found.played, "lifetime show 12377")
    yield f"This shop brought £{one['historic_minor'] / 100:,.0f}, used to order every 39 days"
    yield f"The model gives it {100 * one['p_alive']:.0f} % to be still there"


PASSAGES = (
    sentences_on_the_data,
    sentences_on_rfm,
    sentences_on_moves,
    sentences_on_clusters,
    sentences_on_lifetime,
    sentences_on_the_year_before,
    sentences_on_segments,
)

# What stands in the page as a name or a definition and was not measured.
NO_FIGURES = (
    r"\(BG/NBD\)|CC BY 4\.0|online_retail_\d{4}-\d{4}\.parquet|Machine Learning Repository",
    r"python on\.py 2011-12-11|\]\([^)]*\)|## \d\. |section 7|Section 7|`c[1-7]`",
    r"\b\d{1,2} (September|December)( 20\d\d)?|(September|December|Christmas|before|of|to|for) 20(09|10|11|12)\b",
    r"from 1 to 5, 5 the best; a 5 is",
    r"11 (Sept|Dec)\.|£2,000 and more|over £250|£5,000 and more in the year to",
)


@pytest.mark.parametrize("passage", PASSAGES, ids=lambda passage: passage.__name__)
def test_each_sentence_with_a_number_says_what_was_measured(measured: Measured, passage: Any) -> None:
    text = prose(PAGE)
    assert [sentence for sentence in passage(measured) if sentence not in text] == []


def test_no_number_stands_in_the_page_that_was_not_measured(measured: Measured) -> None:
    text = prose(PAGE)
    for passage in PASSAGES:
        for sentence in passage(measured):
            text = text.replace(sentence, " ")
    for pattern in NO_FIGURES:
        text = re.sub(pattern, " ", text)
    assert [text[max(found.start() - 40, 0) : found.end() + 20] for found in re.finditer(r"\d[\d.,]*", text)] == []


# --- the pictures ---


def small(png: bytes) -> Image.Image:
    """Return a drawn picture as the page holds it: half the width and height, 256 colours."""
    drawn = Image.open(io.BytesIO(png)).convert("RGB")
    halved = drawn.resize((drawn.width // 2, drawn.height // 2), Image.Resampling.LANCZOS)
    return halved.quantize(colors=256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


@pytest.mark.parametrize("name", ["rfm", "clusters", "migration"])
def test_the_pictures_of_the_page_are_what_the_commands_draw(played: Played, tmp_path: Path, name: str) -> None:
    drawn = small((played.shop / f"{name}.png").read_bytes())
    fresh = tmp_path / f"online-retail-{name}.png"
    drawn.save(fresh, optimize=True)
    kept = PICTURES / fresh.name
    assert kept.is_file(), f"take {fresh} if it is right"
    assert kept.stat().st_size < 150_000
    assert f"](pictures/{kept.name})" in PAGE
    with Image.open(kept) as image:
        assert image.size == drawn.size, f"take {fresh} if it is right"
        apart = np.abs(np.asarray(image.convert("RGB"), np.int16) - np.asarray(drawn.convert("RGB"), np.int16))
    assert apart.mean() < 0.5, f"take {fresh} if it is right"
