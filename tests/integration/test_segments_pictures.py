"""Pictures as files people open: what they say, that nothing is lost or cut off, and that they need nothing else."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import matplotlib.image
import numpy as np
import pytest

from kernel.vocabulary import RFM_SEGMENTS
from segments.pictures.cluster_profiles import Cluster, ClusterProfiles, cluster_picture
from segments.pictures.colors import DARK, LIGHT, contrast, gap_step, heat_step
from segments.pictures.migration import NO_LONGER, NOT_YET, Flow, Migration, migration_picture
from segments.pictures.page import page, svg
from segments.pictures.png import png
from segments.pictures.rfm_grid import Cell, RfmGrid, rfm_picture
from segments.pictures.scene import WIDTH_PX, Box, Picture, Ribbon, Words
from segments.pictures.words import fitted, money, name_in_words, percent, short, width_px, wrapped

JUNE, DECEMBER = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
HOSTILE = '</svg><script>alert("x")</script> & $a_b$ \x00 \ud800 株式会社'
FEATURES = ("recency_days", "orders", "net", "return_share")


def grid(**changed: object) -> RfmGrid:
    plain: dict[str, object] = {
        "subject": "account",
        "as_of": DECEMBER,
        "currency": "GBP",
        "scores": 5,
        "groups": RFM_SEGMENTS,
        "cells": (
            Cell(r=5, f=5, group="champions", buyers=30, money_minor=9_000_000),
            Cell(r=1, f=5, group="cant_lose", buyers=10, money_minor=2_000_000),
            Cell(r=1, f=1, group="hibernating", buyers=60, money_minor=1_000_000),
        ),
    }
    return RfmGrid(**{**plain, **changed})  # type: ignore[arg-type]  # figures by name, mixed on purpose


def clusters(**changed: object) -> ClusterProfiles:
    one = Cluster(
        key="c1", name="Frequent, high value", size=40, share=0.2, revenue_share=0.7,
        medians=(12.0, 21.0, 1_234_567.0, 0.03), gaps=(-1.1, 2.4, 2.2, 0.1),
    )  # fmt: skip
    other = Cluster(
        key="c2", name="One order, long ago", size=160, share=0.8, revenue_share=0.3,
        medians=(310.0, 1.0, 25_000.0, float("nan")), gaps=(1.2, -0.8, -0.6, float("nan")),
    )  # fmt: skip
    plain: dict[str, object] = {
        "subject": "account",
        "as_of": DECEMBER,
        "currency": "GBP",
        "features": FEATURES,
        "clusters": (other, one),
    }
    return ClusterProfiles(**{**plain, **changed})  # type: ignore[arg-type]


def migration(**changed: object) -> Migration:
    plain: dict[str, object] = {
        "subject": "account",
        "kind": "RFM groups",
        "since": JUNE,
        "until": DECEMBER,
        "groups": RFM_SEGMENTS,
        "flows": (
            Flow(before="champions", after="champions", subjects=50),
            Flow(before="champions", after="at_risk", subjects=20),
            Flow(before="at_risk", after="loyal_customers", subjects=10),
            Flow(before=NOT_YET, after="new_customers", subjects=15),
            Flow(before="hibernating", after=NO_LONGER, subjects=5),
        ),
    }
    return Migration(**{**plain, **changed})  # type: ignore[arg-type]


PICTURES = {
    "rfm": rfm_picture(grid()),
    "clusters": cluster_picture(clusters()),
    "migration": migration_picture(migration()),
}
OF_CLUSTERS = migration_picture(
    migration(
        groups=("c1", "c2"),
        ordered=False,
        names={"c1": "Very frequent, very high value, very short gaps", "c2": "Infrequent, low value, lapsing"},
        flows=(Flow(before="c1", after="c2", subjects=1), Flow(before=NOT_YET, after="c1", subjects=2)),
    )
)
BARE = {
    "rfm": rfm_picture(grid(cells=())),
    "clusters": cluster_picture(clusters(clusters=())),
    "migration": migration_picture(migration(flows=())),
}
WILD = {
    "rfm": rfm_picture(
        grid(
            scores=10,
            groups=(HOSTILE, "b" * 63),
            notes=(HOSTILE * 4,),
            cells=tuple(
                Cell(r=r, f=f, group=HOSTILE if r > f else "b" * 63, buyers=10**7, money_minor=-(10**15))
                for r in range(1, 11)
                for f in range(1, 11)
            ),
        )
    ),
    "clusters": cluster_picture(
        clusters(
            features=tuple(f"very_long_feature_{number}" for number in range(8)),
            clusters=tuple(
                Cluster(
                    key=f"c{number}",
                    name=HOSTILE * 3,
                    size=10**9,
                    share=0.05,
                    revenue_share=None,
                    medians=(123456789.5,) * 8,
                    gaps=(float(number - 10),) * 8,
                )
                for number in range(20)
            ),
        )
    ),
    "migration": migration_picture(
        migration(
            groups=tuple(f"{HOSTILE} {number}" for number in range(20)),
            ordered=False,
            flows=tuple(
                Flow(before=f"{HOSTILE} {a}", after=f"{HOSTILE} {b}", subjects=1 + a * b)
                for a in range(20)
                for b in range(20)
            ),
        )
    ),
}
ALL = [*PICTURES.values(), *BARE.values(), *WILD.values()]
NAMES = [f"{kind}-{name}" for kind, some in (("plain", PICTURES), ("bare", BARE), ("wild", WILD)) for name in some]


class Outline(HTMLParser):
    """The elements of a page, and that each is closed in its turn."""

    EMPTY = ("meta", "rect", "line", "path")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


# --- what they say -------------------------------------------------------------------------------------------


def test_the_grid_says_in_words_and_tables_what_it_shows() -> None:
    picture = PICTURES["rfm"]
    assert picture.subtitle == "100 accounts that have bought, £120k in all, as of 1 December 2026"
    assert picture.alt == (
        "Most of the 100 accounts are in Hibernating 60%, Champions 30%, Can't lose 10%. "
        "Most money comes from Champions: £90.0k (75%)."
    )
    groups, cells = picture.tables
    assert groups.rows[0] == ("Champions", "30", "30%", "£90.0k", "75%", "£3,000")
    assert [row[1] for row in groups.rows] == ["30", "0", "0", "0", "0", "0", "0", "0", "10", "60"]
    assert cells.rows[0] == ("R 5", "0", "0", "0", "0", "30 (Champions)")


def test_groups_of_nobody_are_not_named_and_one_is_no_plural() -> None:
    one = rfm_picture(grid(cells=(Cell(r=5, f=5, group="champions", buyers=1, money_minor=90_000),)))
    assert one.alt.startswith("The one account is in Champions. ")
    assert one.subtitle.startswith("1 account that has bought, ")
    few = rfm_picture(grid(cells=(Cell(r=5, f=5, group="champions", buyers=3, money_minor=90_000),)))
    assert few.alt.startswith("All 3 accounts are in Champions. ")
    moved = migration_picture(migration(flows=(Flow(before="champions", after="at_risk", subjects=1),)))
    assert moved.alt.startswith("Of 1 account 1 (100%) moved")
    lone = Cluster(
        key="c1", name="Frequent", size=1, share=1.0, revenue_share=1.0,
        medians=(12.0, 21.0, 1_234.0, 0.03), gaps=(0.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    empty = replace(lone, key="c2", size=0, share=0.0, revenue_share=0.0)
    picture = cluster_picture(clusters(clusters=(lone, empty)))
    assert picture.alt == "Frequent (c1): 100% of accounts, 100% of revenue."
    assert picture.subtitle.startswith("1 account in 2 clusters")


def test_the_fullest_cell_is_the_darkest_and_an_empty_one_the_lightest() -> None:
    fills = {box.hint: box.fill for box in PICTURES["rfm"].shapes if isinstance(box, Box) and box.hint.startswith("R ")}
    assert fills["R 1, F 1: Hibernating; 60 accounts, £10.0k"] == "heat7"
    assert fills["R 3, F 3: nobody; 0 accounts, £0"] == "heat0"
    assert len(fills) == 25
    assert [heat_step(share) for share in (0, 0.001, 0.5, 1)] == [0, 1, 4, 7]


def test_a_place_whose_group_hangs_on_money_too_names_them_all() -> None:
    two = (
        Cell(r=3, f=3, group="champions", buyers=1, money_minor=900),
        Cell(r=3, f=3, group="at_risk", buyers=4, money_minor=100),
    )
    picture = rfm_picture(grid(scores=3, groups=("champions", "at_risk"), cells=two))
    assert any(isinstance(shape, Words) and shape.text == "At risk +1" for shape in picture.shapes)
    assert picture.tables[1].rows[0][3] == "5 (At risk, Champions)"


def test_clusters_stand_by_revenue_with_their_medians_in_their_units() -> None:
    (table,) = PICTURES["clusters"].tables
    assert [row[0] for row in table.rows] == ["Frequent, high value (c1)", "One order, long ago (c2)"]
    assert table.rows[0][1:] == (
        "40", "20%", "70%",
        "12 (well below all buyers)", "21 (far above all buyers)", "£12.3k (far above all buyers)",
        "3.0% (like all buyers)",
    )  # fmt: skip
    assert table.rows[1][-1] == "– (no comparison)"
    assert [gap_step(gap) for gap in (-9, -1, -0.5, 0, 0.2, 0.25, 0.75, 1.5)] == [0, 1, 2, 3, 3, 4, 5, 6]


def test_movement_is_told_by_what_became_of_people() -> None:
    picture = PICTURES["migration"]
    assert picture.alt == (
        "Of 100 accounts 50 (50%) stayed, 10 (10%) moved to a better group, 20 (20%) moved to a worse group, "
        "15 (15%) came new, 5 (5.0%) left the groups. The largest move is from Champions to At risk: 20."
    )
    assert picture.tables[1].columns == (
        "From ↓ to →", "Champions", "Loyal customers", "New customers", "At risk", "In no group any more",
    )  # fmt: skip
    assert picture.tables[1].rows[0] == ("Champions", "50", "0", "0", "20", "0")


def test_groups_without_an_order_are_neither_better_nor_worse() -> None:
    picture = migration_picture(migration(ordered=False))
    assert "30 (30%) moved," in picture.alt
    assert "better" not in picture.alt


def test_the_long_names_of_clusters_are_written_in_two_lines() -> None:
    lines = [shape.text for shape in OF_CLUSTERS.shapes if isinstance(shape, Words)]
    assert "Infrequent, low value," in lines
    assert "lapsing" in lines


def test_bands_are_as_high_as_people_are_many_and_fill_their_groups() -> None:
    ribbons = [shape for shape in PICTURES["migration"].shapes if isinstance(shape, Ribbon)]
    heights = {ribbon.hint: ribbon.height for ribbon in ribbons}
    assert heights["Champions → Champions: 50"] == pytest.approx(2.5 * heights["Champions → At risk: 20"])
    nodes = [shape.height for shape in PICTURES["migration"].shapes if isinstance(shape, Box) and shape.width == 14]
    assert sum(ribbon.height for ribbon in ribbons) == pytest.approx(
        sum(height for height in nodes if height != 12) / 2
    )


# --- how they look -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ALL, ids=NAMES)
def test_no_words_leave_the_picture(picture: Picture) -> None:
    for words in picture.shapes:
        if isinstance(words, Words):
            width = width_px(words.text, words.size, bold=words.bold)
            left = words.x - {"start": 0, "middle": width / 2, "end": width}[words.anchor]
            assert left >= -1, words
            assert left + width <= WIDTH_PX + 24, words
            assert 0 < words.y <= picture.height, words


@pytest.mark.parametrize("picture", [*PICTURES.values(), OF_CLUSTERS, WILD["migration"]])
def test_no_words_lie_upon_others(picture: Picture) -> None:
    boxes = []
    for words in picture.shapes:
        if isinstance(words, Words):
            width = width_px(words.text, words.size, bold=words.bold) * 0.9  # The measure is on the broad side.
            left = words.x - {"start": 0, "middle": width / 2, "end": width}[words.anchor]
            boxes.append((left, words.y - words.size * 0.72, left + width, words.y, words.text))
    for place, one in enumerate(boxes):
        for other in boxes[place + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_writing_can_be_read_on_every_colour_it_stands_on(theme: dict[str, str]) -> None:
    for name, color in theme.items():
        if name.startswith("on-"):
            assert contrast(color, theme[name.removeprefix("on-")]) >= 4.5, name
    assert min(contrast(theme[name], theme["paper"]) for name in ("ink", "muted")) >= 4.5
    # Bars and bands that mean something: WCAG 2.2, 1.4.11.
    assert min(contrast(theme[name], theme["paper"]) for name in ("bar", "second", "up", "down", "joined", "gone")) >= 3


def test_contrast_is_that_of_the_published_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


def test_measured_words_are_never_narrower_than_drawn_ones() -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    for text in ("Potential loyalists", "Frequent, high value, lapsing", "£1,234 · 12%", "1,234,567 · 0.4%", "WWW mmm"):
        for weight in ("normal", "bold"):
            font = FontProperties(family="DejaVu Sans", weight=weight)
            drawn = TextPath((0, 0), text, size=20, prop=font).get_extents().width
            assert drawn <= width_px(text, 20, bold=weight == "bold") * 1.02, text


# --- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ALL, ids=NAMES)
def test_a_png_is_twice_as_wide_as_shown_and_the_same_each_time(picture: Picture) -> None:
    data = png(picture)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width == 2 * (WIDTH_PX + 48)
    assert height > 2 * picture.height
    assert data == png(picture)


def test_a_png_shows_the_colours_of_its_boxes() -> None:
    pixels = matplotlib.image.imread(io.BytesIO(png(PICTURES["rfm"])))[:, :, :3]
    found = {tuple(color) for color in np.unique((pixels * 255).round().astype(int).reshape(-1, 3), axis=0).tolist()}
    for name in ("heat0", "heat7", "bar", "second", "ink"):
        assert tuple(int(LIGHT[name][start : start + 2], 16) for start in (1, 3, 5)) in found, name


@pytest.mark.parametrize("picture", ALL, ids=NAMES)
def test_a_page_needs_no_network_and_no_script(picture: Picture) -> None:
    text = page([picture])
    seen = outline(text).seen
    assert not {tag for tag, _ in seen} & {"script", "link", "img", "iframe", "object", "embed", "use", "image"}
    for tag, attributes in seen:
        assert not set(attributes) & {"src", "href", "xlink:href", "onload", "onclick"}, tag
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text
    text.encode("utf-8")


@pytest.mark.parametrize("picture", ALL, ids=NAMES)
def test_a_drawing_is_well_formed_and_bears_its_words_for_those_who_do_not_see_it(picture: Picture) -> None:
    root = ET.fromstring(svg(picture, name="one"))
    assert root.attrib["role"] == "img"
    ids = root.attrib["aria-labelledby"].split()
    told = {element.attrib["id"]: element.text for element in root if "id" in element.attrib}
    assert [told[name] for name in ids] == [picture.title, re.sub(r"[\x00\ud800]", "", picture.alt)]


def test_a_page_knows_light_and_dark_and_every_colour_it_uses() -> None:
    text = page(list(PICTURES.values()))
    assert "@media screen and (prefers-color-scheme:dark)" in text
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", text))
    assert used <= set(LIGHT) == set(DARK)


def test_a_page_has_each_picture_once_with_its_tables_and_ids_of_its_own() -> None:
    seen = outline(page(list(PICTURES.values()))).seen
    ids = [attributes["id"] for _, attributes in seen if "id" in attributes]
    assert len(ids) == len(set(ids)) == 9
    tags = [tag for tag, _ in seen]
    assert (tags.count("svg"), tags.count("table"), tags.count("caption")) == (3, 5, 5)
    scopes = {attributes.get("scope") for tag, attributes in seen if tag == "th"}
    assert scopes == {"col", "row"}


def test_hostile_names_stay_words() -> None:
    text = page([WILD["clusters"]])
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x00" not in text
    assert "株式会社" in text


# --- words ---------------------------------------------------------------------------------------------------


def test_figures_are_short_and_never_rounded_to_another_kind() -> None:
    amounts = (0, 2_50, 99_99, 1_234_56, 9_999_49, 10_000_00, 99_949_000_00, 2_500_000_000_00, -500_00)
    told = [money(amount, "GBP") for amount in amounts]
    assert told == ["£0", "£2.50", "£99.99", "£1,235", "£9,999", "£10.0k", "£99.9m", "£2.5bn", "−£500"]
    assert [short(number) for number in (9_999, 99_949, 99_951, 999_499, 999_501, 1e9 - 1)] == [
        "9,999", "99.9k", "100k", "999k", "1.0m", "1.0bn",
    ]  # fmt: skip
    assert money(1234, "JPY") == "JPY 1,234"
    assert [percent(share) for share in (0, 0.0004, 0.034, 0.0994, 0.0996, 1)] == [
        "0%",
        "<0.1%",
        "3.4%",
        "9.9%",
        "10%",
        "100%",
    ]
    assert name_in_words("cant_lose") == "Can't lose"


def test_long_names_are_broken_between_words_and_cut_only_where_they_must_be() -> None:
    assert wrapped("Frequent, high value, lapsing", 130, 14) == ["Frequent, high", "value, lapsing"]
    assert fitted("short", 100, 14) == "short"
    cut = fitted("a name far too long for its place", 100, 14)
    assert cut.endswith("…")
    assert width_px(cut, 14) <= 100
