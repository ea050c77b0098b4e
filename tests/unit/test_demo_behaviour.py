"""The simulated customers' decisions: repeatable, plausible, and slower than machines."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from demo.behaviour import Behaviour, MailReaction, Person


def people(group: str, count: int = 3_000) -> list[Person]:
    return [
        Person(
            address=f"p{number}@oak.example",
            account_code=f"A{number}",
            contact_code=f"C{number}",
            group=group,
            usual_order=300.0,
        )
        for number in range(count)
    ]


def share(group: str, what: Callable[[MailReaction], object]) -> float:
    model = Behaviour(7)
    reactions = [model.to_mail(person, "Hello") for person in people(group)]
    return sum(bool(what(reaction)) for reaction in reactions) / len(reactions)


def test_the_same_seed_gives_the_same_reactions_in_any_order() -> None:
    crowd = people("at_risk", 200)
    forwards = {person.address: Behaviour(7).to_mail(person, "Hello") for person in crowd}
    one_model = Behaviour(7)
    backwards = {person.address: one_model.to_mail(person, "Hello") for person in reversed(crowd)}
    assert forwards == backwards
    assert forwards != {person.address: Behaviour(8).to_mail(person, "Hello") for person in crowd}
    assert one_model.to_sms(crowd[0], "Hi") == Behaviour(7).to_sms(crowd[0], "Hi")


@pytest.mark.parametrize("what", ["opens_after_s", "clicks_after_s", "orders_after_s"])
def test_champions_respond_better_than_lapsing_accounts(what: str) -> None:
    champions = share("champions", lambda reaction: getattr(reaction, what))
    lapsing = share("at_risk", lambda reaction: getattr(reaction, what))
    assert champions > 1.5 * lapsing > 0


def test_nobody_clicks_unread_or_orders_unclicked_and_people_take_their_time() -> None:
    model = Behaviour(7, pace_s=2.5)
    for person in people("champions"):
        reaction = model.to_mail(person, "Hello")
        opened, clicked, ordered = reaction.opens_after_s, reaction.clicks_after_s, reaction.orders_after_s
        assert clicked is None or (opened is not None and opened < clicked)
        assert ordered is None or (clicked is not None and clicked < ordered)
        assert opened is None or opened >= 2.5
        assert (ordered is None) == (reaction.order_value == 0)
        if reaction.bounce:
            assert reaction == MailReaction(bounce=reaction.bounce)
        if reaction.unsubscribes_after_s is not None:
            assert clicked is None


def test_a_few_mailboxes_bounce_refuse_or_put_off() -> None:
    model = Behaviour(7)
    addresses = [person.address for person in people("at_risk", 10_000)]
    refused = {address for address in addresses if model.refuses(address)}
    greylisted = {address for address in addresses if model.greylists(address)}
    assert 0.006 < len(refused) / len(addresses) < 0.02
    assert 0.005 < len(greylisted) / len(addresses) < 0.016
    assert 0.005 < share("at_risk", lambda reaction: reaction.bounce) < 0.03
    assert 0.05 < share("at_risk", lambda reaction: reaction.scanned_after_s) < 0.15


def test_accounts_buy_a_little_without_being_written_to() -> None:
    model = Behaviour(7)
    anyway = [model.orders_anyway(person) for person in people("champions")]
    bought = [value for value in anyway if value is not None]
    assert 0.07 < len(bought) / len(anyway) < 0.13
    assert share("champions", lambda reaction: reaction.orders_after_s) > len(bought) / len(anyway)
    assert min(bought) >= 15.0


def test_people_have_network_addresses_of_their_own_in_the_range_for_documentation() -> None:
    model = Behaviour(7)
    addresses = [model.network_address(person.address) for person in people("at_risk", 500)]
    assert len(set(addresses)) == 500
    assert all(address.startswith("2001:db8:") for address in addresses)
