"""The dialogue against servers that say anything at all: it never raises, and never calls accepted what was not.

CARILLON_FUZZ_EXAMPLES=100000 makes the fuzz run longer than the suite does.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import DeliveryError, GatewayDown
from tests.contract.test_channels import mail
from tests.servers.flights import RememberingFlight
from workers.smtp.dialogue import Dialogue
from workers.smtp.handshake import START_TLS, Terms, greet
from workers.smtp.letters import Batch, Letter
from workers.smtp.logins import Login
from workers.smtp.offers import Offers, read_offers
from workers.smtp.replies import Reply, ReplyReader

EXAMPLES = int(os.environ.get("CARILLON_FUZZ_EXAMPLES", "400"))
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


class Watching:
    """A crew that checks the order of things as they happen. `heard` counts what the server had said so far."""

    def __init__(self, letters: int) -> None:
        parcels = [mail(f"ann+{index}@x.example", index) for index in range(letters)]
        self.batch = Batch([(parcel, parcel.content) for parcel in parcels], RememberingFlight())  # type: ignore[misc]
        self.waiting = list(self.batch.letters)
        self.out: list[Letter] = []
        self.written: list[bytes] = []
        self.fed = 0
        self.committed_at: dict[int, int] = {}
        self.endings: dict[int, str] = {}
        self.hung_up = False

    def hear(self, dialogue: Dialogue, data: bytes) -> None:
        self.fed += 1
        dialogue.receive(data)

    def write(self, data: bytes) -> None:
        assert data
        assert not self.hung_up
        self.written.append(data)

    pour = write

    def take(self) -> Letter | None:
        return self.waiting.pop(0) if self.waiting else None

    def commit(self, letter: Letter) -> bool:
        assert letter.index not in self.committed_at
        self.committed_at[letter.index] = self.fed
        return True

    def accepted(self, letter: Letter, code: int, text: bytes) -> None:
        assert 200 <= code < 300
        # The answer came in bytes that were read after the dot was handed over.
        assert self.committed_at[letter.index] < self.fed
        self.end(letter, "accepted")

    def decided(self, letter: Letter, error: DeliveryError) -> None:
        self.end(letter, "decided")

    def lost(self, letter: Letter, reason: str) -> None:
        assert letter.index in self.committed_at
        self.end(letter, "lost")

    def returned(self, letter: Letter) -> None:
        assert letter.index not in self.committed_at
        self.end(letter, "returned")

    def troubled(self, letter: Letter, down: GatewayDown, *, closing: bool) -> None:
        self.end(letter, "troubled")

    def broken(self, reason: str) -> None: ...
    def idle(self) -> None: ...

    def hang_up(self) -> None:
        self.hung_up = True

    def end(self, letter: Letter, how: str) -> None:
        assert letter.index not in self.endings
        self.endings[letter.index] = how


LINES = st.sampled_from(
    [
        b"250 ok\r\n",
        b"250 2.1.0 ok\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"450 4.2.0 later\r\n",
        b"421 bye\r\n",
        b"503 5.5.1 what\r\n",
        b"552 5.3.4 big\r\n",
        b"250-a\r\n250 b\r\n",
        b"550 5.7.26 you\r\n",
        b"250-",
        b"\r\n",
        b"25",
    ]
)
ENVELOPE = b"250 ok\r\n250 ok\r\n354 go\r\n"
GOOD = st.sampled_from([ENVELOPE, b"250 queued\r\n", b"250 queued\r\n" + ENVELOPE])
SPEECH = st.lists(st.one_of(GOOD, GOOD, LINES, st.binary(max_size=8)), max_size=14)
OFFERS = st.builds(Offers, pipelining=st.booleans(), chunking=st.booleans(), sized=st.booleans(), dsn=st.booleans())


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
@given(offers=OFFERS, speech=SPEECH, letters=st.integers(0, 5), dsn=st.booleans())
def test_no_server_makes_it_raise_or_lie(offers: Offers, speech: list[bytes], letters: int, dsn: bool) -> None:
    crew = Watching(letters)
    dialogue = Dialogue(crew, offers, crew.write, ReplyReader(), dsn=dsn)
    dialogue.begin()
    for piece in speech:
        if crew.hung_up:
            break
        crew.hear(dialogue, piece)
        if not dialogue.busy and not crew.hung_up:
            dialogue.begin()
    dialogue.fail("the end")
    taken = letters - len(crew.waiting)
    assert len(crew.endings) == taken
    said_yes = b"".join(speech).count(b"250")
    assert Counter(crew.endings.values())["accepted"] <= said_yes
    for index, ending in crew.endings.items():
        assert ending != "lost" or index in crew.committed_at
    # No body without the point of no return, none twice.
    bodies = b"".join(crew.written).count(b"Message-ID: <m")
    assert bodies == len(crew.committed_at)


ANSWERS = st.tuples(
    st.sampled_from([220, 220, 250, 250, 334, 235, 421, 454, 500, 535]),
    st.one_of(st.just(b"x\nSTARTTLS\nAUTH PLAIN LOGIN CRAM-MD5 XOAUTH2"), st.binary(max_size=30)),
)
LOGINS = st.builds(
    Login,
    username=st.just("u"),
    secret=st.just("s"),
    mechanism=st.sampled_from(["", "PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"]),
)
TERMS = st.builds(
    Terms, helo=st.just("x"), tls=st.sampled_from(["none", "starttls"]), login=st.one_of(st.none(), LOGINS)
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
@given(terms=TERMS, answers=st.lists(ANSWERS, min_size=12, max_size=12))
def test_no_server_makes_the_handshake_do_anything_but_end_or_give_up(terms: Terms, answers: list[Reply]) -> None:
    steps = greet(terms)
    said: list[object] = [next(steps)]
    with suppress(GatewayDown, StopIteration):
        for answer in answers:
            said.append(steps.send((220, b"") if said[-1] is START_TLS else answer))
    if terms.tls == "starttls" and START_TLS not in said:
        # Neither who we are nor a message leaves in clear.
        assert all(
            said_.split()[:1] in ([], [b"EHLO"], [b"HELO"], [b"STARTTLS"]) for said_ in said if isinstance(said_, bytes)
        )
    assert len(said) <= 12


@given(st.binary(max_size=300))
def test_no_answer_to_ehlo_makes_it_raise(text: bytes) -> None:
    read_offers(text)


def pipelined(letters: int = 3, **offers: bool) -> tuple[Dialogue, Watching]:
    crew = Watching(letters)
    dialogue = Dialogue(crew, Offers(pipelining=True, **offers), crew.write, ReplyReader())
    dialogue.begin()
    return dialogue, crew


def test_body_and_next_envelope_leave_in_one_write() -> None:
    dialogue, crew = pipelined()
    assert crew.written == [b"MAIL FROM:<bounce@acme.example>\r\nRCPT TO:<ann+0@x.example>\r\nDATA\r\n"]
    crew.hear(dialogue, b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert len(crew.written) == 2
    assert crew.written[1].startswith(b"Message-ID: <m0@x>")
    assert crew.written[1].endswith(
        b"\r\n.\r\nMAIL FROM:<bounce@acme.example>\r\nRCPT TO:<ann+1@x.example>\r\nDATA\r\n"
    )


def test_an_answer_that_comes_with_the_354_answers_no_dot() -> None:
    dialogue, crew = pipelined()
    crew.hear(dialogue, b"250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n")
    assert crew.committed_at == {}
    assert crew.endings == {0: "decided"}
    assert crew.hung_up


def test_a_body_is_answered_and_then_the_connection_breaks() -> None:
    dialogue, crew = pipelined()
    crew.hear(dialogue, b"250 ok\r\n250 ok\r\n354 go\r\n")
    crew.hear(dialogue, b"250 queued\r\nhello\r\n")
    assert crew.endings == {0: "accepted", 1: "returned"}


def test_a_letter_behind_an_unanswered_dot_can_be_given_to_another() -> None:
    dialogue, crew = pipelined()
    crew.hear(dialogue, b"250 ok\r\n250 ok\r\n354 go\r\n")
    behind = dialogue.release()
    assert behind is not None
    assert behind.index == 1
    assert dialogue.release() is None
    crew.hear(dialogue, b"250 queued\r\n250 ok\r\n250 ok\r\n354 go\r\n")
    assert crew.endings == {0: "accepted"}
    assert crew.hung_up
    assert crew.committed_at.keys() == {0}


def test_a_transaction_the_server_holds_on_to_is_reset_and_the_letter_tried_again() -> None:
    dialogue, crew = pipelined(2, chunking=True)
    crew.hear(dialogue, b"250 ok\r\n250 ok\r\n")
    crew.hear(dialogue, b"452 4.2.2 full\r\n503 5.5.1 nested MAIL\r\n503 5.5.1 nested\r\n")
    assert crew.endings == {0: "decided", 1: "returned"}
    assert crew.written[-1] == b"RSET\r\n"
