"""Strict YAML: every trap named with its place, all at once, and nothing that hangs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

from kernel.documents import did_you_mean, parse_document, read_document
from kernel.errors import InputError


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    email: str
    wait: str = "0s"
    tries: int = 1


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    title: str
    mood: Literal["calm", "keen"] = "calm"
    steps: list[Step]


def problems_of(text: str) -> list[str]:
    try:
        document = parse_document(text, "f.yaml")
    except InputError as error:
        return [str(problem) for problem in error.problems]
    return [str(problem) for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello", "hello"),
        ("'NO'", "NO"),
        ('"12:30"', "12:30"),
        ("12", 12),
        ("-7", -7),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("2026-12-01", "2026-12-01"),
        ("2026-12-01 09:00", "2026-12-01 09:00"),
        ("08:00-18:00", "08:00-18:00"),
        ("600/hour", "600/hour"),
        ("10%", "10%"),
        ("1e999", "1e999"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: []}}", {"a": {"b": []}}),
        ("|\n  no\n  12:30\n", "no\n12:30\n"),
    ],
)
def test_plain_values_follow_the_core_schema(text: str, value: object) -> None:
    document = parse_document(f"a: {text}", "f.yaml")
    assert document.problems == ()
    assert document.data == {"a": value}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: NO", "f.yaml:1:4: NO needs quotes: many YAML readers take it for true or false (write \"NO\")"),
        ("a: on", "f.yaml:1:4: on needs quotes"),
        ("at: 12:30", "f.yaml:1:5: 12:30 needs quotes: many YAML readers take it for a number in base 60"),
        ("at: 9:30:15", "f.yaml:1:5: 9:30:15 needs quotes"),
        ("tel: +4917012345", "f.yaml:1:6: +4917012345 needs quotes: YAML takes it for a number and drops the plus"),
        ("zip: 01234", "f.yaml:1:6: 01234 needs quotes"),
        ("a: 0x1F", "f.yaml:1:4: 0x1F needs quotes"),
        ("a: 0o17", "f.yaml:1:4: 0o17 needs quotes"),
        ("a: 1_000", "f.yaml:1:4: 1_000 needs quotes"),
        ("%YAML 1.1\n---\na: NO", "f.yaml:3:4: NO needs quotes"),
        ("a: 1\nb: 2\na: 3", "f.yaml:3:1: duplicate key 'a' (first seen on line 1; keep one)"),
        ('a: 1\n"a": 3', "f.yaml:2:1: duplicate key 'a'"),
        ("a: {b: 1, b: 2}", "f.yaml:1:11: duplicate key 'b'"),
        ("a: *b", "f.yaml:1:4: alias *b is not allowed (write the value out again)"),
        ("a: &x 1", "f.yaml:1:4: anchor &x is not allowed"),
        ("a: &x [1]", "f.yaml:1:4: anchor &x is not allowed"),
        ("&x a: 1", "f.yaml:1:1: anchor &x is not allowed"),
        ("a:\n  <<: {b: 1}", "f.yaml:2:3: merge keys (<<) are not allowed"),
        ("a: !!python/object:os.system x", "f.yaml:1:4: tag !!python/object:os.system is not allowed"),
        ("a: !!str 12", "f.yaml:1:4: tag !!str is not allowed (remove it; quotes make text of any value)"),
        ("a: !!set {x}", "f.yaml:1:4: tag !!set is not allowed"),
        ("a: !mine [1]", "f.yaml:1:4: tag !mine is not allowed"),
        ("a: {{ name }}", "f.yaml:1:5: a key must be a plain word (if this is a {{ … }} of a template, put it"),
        ("? [a]\n: b", "f.yaml:1:3: a key must be a plain word"),
        ("a: 1\n---\nb: 2", "f.yaml:2:1: a second document starts here (keep one; remove the line ---)"),
        ('a: "\\ud800"', "f.yaml:1:4: holds half a character"),
        ("a:\n\tb: 1", "f.yaml:2:1: is not YAML: found character '\\t' that cannot start any token (YAML does not"),
        ("a: b: c", "f.yaml:1:5: is not YAML: mapping values are not allowed here (if the value holds ': '"),
        ("b: 1\na: \x07", "f.yaml:2:4: holds the control character U+0007 (remove it)"),
        ("a: [" * 60, "f.yaml:1:84: is nested deeper than 40 levels (put inner conditions into a"),
        ("\n".join(" " * n + "a:" for n in range(50)), "f.yaml:42:42: is nested deeper than 40 levels (put inner"),
        ("", "f.yaml: is empty"),
        ("# only a remark\n", "f.yaml: is empty"),
    ],
)  # fmt: skip
def test_a_trap_is_named_with_its_place_and_remedy(text: str, problem: str) -> None:
    assert [found for found in problems_of(text) if found.startswith(problem)], problems_of(text)


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    base_60 = "many YAML readers take it for a number in base 60, not a time"
    document = parse_document(
        "title: 3\nmod: calm\nmood: keeen\nsteps:\n  - email: x\n    wait: 12:30\n  - wiat: 3d\n    tries: many\n",
        "f.yaml",
    )
    with pytest.raises(InputError) as caught:
        document.validate(Plan)
    assert [str(problem) for problem in caught.value.problems] == [
        'f.yaml:1:8: title: expected text, got 3 (put it in quotes: "…")',
        "f.yaml:2:1: unknown key 'mod' (did you mean 'mood'?)",
        "f.yaml:3:7: mood: 'keeen' is not one of 'calm' or 'keen' (did you mean 'keen'?)",
        f'f.yaml:6:11: 12:30 needs quotes: {base_60} (write "12:30")',
        "f.yaml:7:5: 'email' is missing",
        "f.yaml:7:5: unknown key 'wiat' (did you mean 'wait'?)",
        "f.yaml:8:12: tries: expected a whole number, got 'many'",
    ]


def test_a_refused_value_is_not_refused_twice() -> None:
    document = parse_document("title: *x\nsteps: []", "f.yaml")
    with pytest.raises(InputError) as caught:
        document.validate(Plan)
    assert [problem.message for problem in caught.value.problems] == ["alias *x is not allowed"]


@pytest.mark.parametrize("top", ["- 1", "hello", "12"])
def test_a_file_that_is_no_mapping_is_refused(top: str) -> None:
    with pytest.raises(InputError, match="expected keys with values"):
        parse_document(top, "f.yaml").validate(Plan)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 3_000,
        "[" * 900_000,
        "{a: " * 200_000,
        "- " * 400_000,
        "? " * 400_000,
        "".join(" " * depth + "a:\n" for depth in range(1_300)),
        "a: &a [x, x]\n" + "".join(f"{k}: &{k} [*a, *a]\n" for k in "bcdefghijklm"),
        "!a " * 300_000,
    ],
)
def test_hostile_files_are_refused_quickly(text: str) -> None:
    started = time.perf_counter()
    assert problems_of(text)
    assert time.perf_counter() - started < 2


def test_a_file_may_be_large_but_not_huge() -> None:
    assert problems_of('a: "' + "x" * 900_000 + '"') == []
    assert problems_of("a: " + "x" * 1_000_001) == ["f.yaml: is larger than 1,000,000 characters (split it)"]


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9\r\n")
    assert read_document(path).data == {"a": "é"}


def test_a_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(InputError, match=r"is not UTF-8 \(byte 3\) \(save it as UTF-8\)"):
        read_document(path)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"campaigns/x\.yaml: cannot be read: No such file"):
        read_document(tmp_path / "x.yaml", shown_as="campaigns/x.yaml")


def test_marks_lead_to_values_and_to_the_nearest_parent() -> None:
    document = parse_document("a:\n  - b: 1\n    c:\n      d: x\n", "f.yaml")
    assert document.mark(("a", 0, "b")) == (2, 8)
    assert document.mark(("a", 0, "c")) == (3, 5)
    assert document.mark(("a", 0, "c", "d", "unknown")) == (4, 10)
    assert document.mark(()) == (1, 1)


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("champion", ["champions", "at_risk"], "did you mean 'champions'?"),
        ("zzz", ["b", "a"], "known: a, b"),
        ("zzz", [f"n{i:02}" for i in range(14)], "known: " + ", ".join(f"n{i:02}" for i in range(12)) + ", …"),
        ("zzz", [], ""),
    ],
)
def test_a_misspelt_word_is_recognised(word: str, known: list[str], hint: str) -> None:
    assert did_you_mean(word, known) == hint


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(_TEXT.filter(lambda key: key != "<<"), st.lists(_TEXT | st.integers(-(10**9), 10**9)), max_size=5)
)
def test_whatever_is_written_in_json_reads_as_itself(data: dict[str, list[str | int]]) -> None:
    import json

    document = parse_document(json.dumps(data, ensure_ascii=False), "f.yaml")
    assert (document.data, document.problems) == (data, ())


@settings(max_examples=150, deadline=None)
@given(st.text("ab:-?[]{}&*!|>'\"%@`#,~ \n\t0123", max_size=60))
def test_no_text_whatever_raises_anything_but_input_errors(text: str) -> None:
    try:
        ours = parse_document(text, "f.yaml")
    except InputError:
        return
    if not ours.problems:
        # What we accept, an ordinary reader accepts as well.
        YAML(typ="safe", pure=True).load(text)
