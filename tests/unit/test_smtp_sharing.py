"""How many connections, who waits, and who is to blame: the pure parts of a pool."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.contract.test_channels import mail
from tests.servers.flights import RememberingFlight
from workers.smtp.letters import Batch, Letter
from workers.smtp.queueing import Waiting
from workers.smtp.sizing import Sizing
from workers.smtp.suspicion import Blame, Suspicion


def batch_to(domains: str) -> Batch:
    parcels = [mail(f"ann@{domain}.example", index) for index, domain in enumerate(domains)]
    return Batch([(parcel, parcel.content) for parcel in parcels], RememberingFlight())  # type: ignore[misc]


def take_all(waiting: Waiting) -> list[Letter]:
    return list(iter(waiting.take, None))


# --- the number of connections -------------------------------------------------------------------------------


def test_the_number_doubles_each_round_until_the_first_refusal() -> None:
    sizing = Sizing(20)
    assert sizing.target == 5
    assert all(sizing.succeeded(0.0) for _ in range(5))
    assert sizing.target == 10
    while not sizing.full:
        sizing.succeeded(0.0)
    assert sizing.target == 20


def test_a_refusal_brings_it_down_and_it_grows_by_one_a_round_after_a_pause() -> None:
    sizing = Sizing(20)
    sizing.refused(3, 0.0)
    assert sizing.target == 3
    assert not sizing.open(0.5)
    assert not any(sizing.succeeded(0.5) for _ in range(10))
    assert sizing.open(1.0)
    assert sizing.succeeded(1.0)  # The round was full long ago.
    assert [sizing.succeeded(1.0) for _ in range(4)] == [False, False, False, True]
    assert sizing.target == 5


def test_refusals_that_come_together_count_once_and_later_ones_make_the_pause_longer() -> None:
    sizing = Sizing(20)
    now, pauses = 0.0, []
    for _ in range(9):
        sizing.refused(0, now)
        sizing.refused(0, now)
        start = now
        while not sizing.open(now):
            now += 0.5
        pauses.append(now - start)
    assert sizing.target == 1
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


# --- who waits -----------------------------------------------------------------------------------------------


def test_while_others_wait_a_domain_has_its_share() -> None:
    waiting = Waiting()
    waiting.share = 2
    waiting.add(batch_to("aaaaab"))
    assert [letter.index for letter in (waiting.take(), waiting.take(), waiting.take()) if letter] == [0, 1, 5]
    assert waiting.take() is None
    assert len(waiting) == 3


def test_alone_a_domain_may_have_all_unless_it_is_slow() -> None:
    waiting = Waiting()
    waiting.share = 2
    waiting.add(batch_to("aaaaa"))
    assert len(take_all(waiting)) == 5
    waiting.slow = {"a.example"}
    waiting.add(batch_to("aaaaa"))
    assert take_all(waiting) == []


@given(st.text("abc", max_size=30), st.integers(1, 5), st.data())
def test_nobody_is_lost_or_sent_twice_whatever_is_taken_freed_and_put_back(
    domains: str, share: int, data: st.DataObject
) -> None:
    waiting, batch = Waiting(), batch_to(domains)
    waiting.share = share
    waiting.add(batch)
    under_way: list[Letter] = []
    done: list[int] = []
    for _ in range(400):
        if not waiting and not under_way:
            break
        letter = waiting.take()
        if letter is not None:
            under_way.append(letter)
        elif under_way:
            back = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            waiting.free(back)
            if data.draw(st.integers(0, 9)) == 0:
                waiting.put_back(back, first=data.draw(st.booleans()))
            else:
                done.append(back.index)
        else:
            raise AssertionError("somebody waits for nothing")
        assert batch.waiting == len(waiting)
    else:
        return
    assert sorted(done) == list(range(len(domains)))


def test_a_batch_that_is_withdrawn_leaves_the_others() -> None:
    waiting, one, two = Waiting(), batch_to("ab"), batch_to("ab")
    waiting.add(one)
    waiting.add(two)
    waiting.withdraw(one)
    assert one.left == 0
    assert [letter.batch for letter in take_all(waiting)] == [two, two]


# --- who is to blame -----------------------------------------------------------------------------------------


def test_a_relay_that_hangs_up_on_the_only_connection_is_down() -> None:
    assert Suspicion().closed(1, others_live=False, others_wait=True) is Blame.RELAY


def test_a_letter_hung_up_on_twice_while_others_are_accepted_is_to_blame() -> None:
    suspicion = Suspicion()
    assert suspicion.closed(1, others_live=True, others_wait=True) is Blame.NOBODY
    suspicion.cleared()
    assert suspicion.closed(1, others_live=True, others_wait=True) is Blame.LETTER


def test_a_letter_hung_up_on_again_lets_another_be_tried_once() -> None:
    suspicion = Suspicion()
    assert suspicion.closed(1, others_live=False, others_wait=True) is Blame.RELAY
    assert suspicion.closed(1, others_live=False, others_wait=True) is Blame.NOBODY
    assert suspicion.closed(2, others_live=False, others_wait=True) is Blame.RELAY


def test_no_letter_is_to_blame_while_nothing_is_accepted() -> None:
    suspicion = Suspicion()
    verdicts = {suspicion.closed(1, others_live=False, others_wait=False) for _ in range(20)}
    assert verdicts == {Blame.RELAY}


def test_five_lost_connections_in_a_row_are_the_relays_habit() -> None:
    suspicion = Suspicion()
    assert [suspicion.lost() for _ in range(4)] == [False] * 4
    suspicion.cleared()
    assert [suspicion.lost() for _ in range(5)] == [False] * 4 + [True]
