from __future__ import annotations

import re
from pathlib import Path

from templates.context import EMAIL_SHAPE, SHAPE
from templates.filters import template_filters
from templates.sources import shipped_files

DOCS = (Path(__file__).parents[2] / "docs" / "templates.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([a-z_]+)`", DOCS))


def test_every_filter_is_documented() -> None:
    assert {name for name in template_filters({}) if name not in NAMED} == set()


def test_every_name_a_template_knows_is_documented() -> None:
    names = {**SHAPE, **EMAIL_SHAPE}
    wanted = set(names) | {inner for known in names.values() if known for inner in known}
    assert wanted - NAMED == set()


def test_every_shipped_base_template_is_documented() -> None:
    assert [path for path in shipped_files() if f"`{path}`" not in DOCS] == []
