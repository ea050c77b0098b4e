"""The demo's audit finds every way in which books and mailbox can disagree."""

from __future__ import annotations

import pytest

from campaigns.books import Books
from demo.audit import Accounts, CampaignAccount
from kernel.vocabulary import Channel


def account(*, sent: int = 3, audience: int = 5) -> CampaignAccount:
    """Three e-mails accepted and arrived, one person skipped, one pending."""
    found = CampaignAccount(
        campaign="winback",
        books=Books(
            audience=audience, people=5, sent=sent, failed=0, skipped={"excluded": 1}, held_out=0, pending=1, in_doubt=0
        ),
    )
    found.accepted[Channel.EMAIL] = {1, 2, 3}
    found.arrived[Channel.EMAIL].update([1, 2, 3])
    return found


def test_books_that_agree_have_no_problems() -> None:
    assert account().problems() == []


def test_a_lost_message_is_found() -> None:
    books = account()
    del books.arrived[Channel.EMAIL][2]
    assert books.problems() == ["winback: accepted by email, but never arrived: messages 2"]


def test_a_message_that_arrived_twice_is_found() -> None:
    books = account()
    books.arrived[Channel.EMAIL][3] += 1
    assert books.problems() == ["winback: arrived more than once by email: messages 3"]


def test_a_message_the_ledger_does_not_call_accepted_is_found() -> None:
    books = account()
    books.arrived[Channel.SMS][9] += 1
    assert books.problems() == ["winback: arrived by sms, but not in the ledger as accepted: 9"]


@pytest.mark.parametrize(
    ("books", "word"),
    [(account(audience=6), "sum of its ends"), (account(sent=2, audience=4), "the ledger has other rows")],
)
def test_books_that_do_not_add_up_are_found(books: CampaignAccount, word: str) -> None:
    assert any(word in problem for problem in books.problems())


def test_strays_are_problems() -> None:
    assert Accounts(by_campaign=[account()], strays=["000009.eml: no message"]).problems() == ["000009.eml: no message"]


def test_an_empty_audience_is_a_problem() -> None:
    empty = CampaignAccount(
        campaign="winback",
        books=Books(audience=0, people=0, sent=0, failed=0, skipped={}, held_out=0, pending=0, in_doubt=0),
    )
    assert empty.problems() == ["winback: nobody is in its audience"]
