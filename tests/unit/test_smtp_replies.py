"""Bytes in, replies out: whatever the pieces, whatever the bytes."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.smtp.replies import MAX_LINE, MAX_REPLY, ReplyReader, words

WHOLE = b"220 hello\r\n250-one\r\n250-two\r\n250 three\r\n354\r\n550 5.1.1 no\r\n"
REPLIES = [(220, b"hello"), (250, b"one\ntwo\nthree"), (354, b""), (550, b"5.1.1 no")]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    reader = ReplyReader()
    edges = [0, *sorted(cuts), len(WHOLE)]
    got = [reply for start, end in pairwise(edges) for reply in reader.feed(WHOLE[start:end])]
    assert got == REPLIES
    assert not reader.pending
    assert not reader.broken


def test_a_line_may_end_in_a_line_feed_alone() -> None:
    assert ReplyReader().feed(WHOLE.replace(b"\r\n", b"\n")) == REPLIES


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"250x no\r\n",
        b"199 no\r\n",
        b"600 no\r\n",
        b"\x00\x00\x00\r\n",
        b"250-yes\r\n550 no\r\n",
        b"250 " + b"a" * MAX_LINE + b"\r\n",
        b"a" * 100_000,
        b"250-" + b"\r\n250-".join([b"a" * 4000] * (MAX_REPLY // 4000 + 1)) + b"\r\n250 ok\r\n",
        "\uff12\uff15\uff10 ok\r\n".encode(),
    ],
)
def test_what_is_no_reply_breaks_the_reader_and_what_came_before_stands(said: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(b"250 ok\r\n" + said) == [(250, b"ok")]
    assert reader.broken
    assert reader.feed(b"250 ok\r\n") == []


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_make_it_raise_and_every_reply_has_a_code(pieces: list[bytes]) -> None:
    reader = ReplyReader()
    for piece in pieces:
        for code, text in reader.feed(piece):
            assert 200 <= code <= 599
            assert words(text).isprintable()


def test_memory_stays_bounded_against_a_server_that_never_ends_a_line() -> None:
    reader = ReplyReader()
    tracemalloc.start()
    try:
        for _ in range(1000):
            reader.feed(b"2" * 10_000)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_words_may_be_shown_and_stored_whatever_the_server_says() -> None:
    assert words(b"a\x00b\r\nc\x1b[31m \xff\xe2\x80\xa8 end") == "a b  c [31m �  end"
