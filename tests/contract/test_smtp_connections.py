"""Many connections to one relay: as many as it bears, none held up by another, answers that are long in coming."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from random import Random

import pytest

from kernel.errors import GatewayDown
from templates.mail import ComposedMail
from tests.contract.test_channels import free_port
from tests.contract.test_smtp_faults import accepted_by, parcel
from tests.contract.test_smtp_stages import gateway
from tests.servers.flights import RememberingFlight
from tests.servers.smtp_sink import Sink, SinkServer
from workers.channels.port import Parcel, Receipt
from workers.channels.smtp import SmtpChannel
from workers.recorder import Fenced
from workers.smtp import dialling, pool
from workers.smtp.connection import Relay
from workers.smtp.handshake import Terms


def to(domain: str, index: int) -> Parcel:
    made = parcel(index)
    assert isinstance(made.content, ComposedMail)
    return replace(made, content=replace(made.content, envelope_to=f"ann+{index}@{domain}"))


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


@contextmanager
def channel_to(sink: Sink, **settings: object) -> Iterator[SmtpChannel]:
    with SinkServer(sink) as server:
        channel = SmtpChannel(gateway(server.port, **settings))
        try:
            yield channel
        finally:
            channel.close()


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as executor:
        yield executor


def deliver(
    channel: SmtpChannel, parcels: list[Parcel], flight: RememberingFlight, background: ThreadPoolExecutor
) -> Future[frozenset[int]]:
    return background.submit(channel.deliver, parcels, flight, lambda: True)


# --- how many ------------------------------------------------------------------------------------------------


def test_a_long_queue_is_worth_many_connections_and_a_short_one_is_not() -> None:
    sink, flight = Sink(ponders_s=0.02), RememberingFlight()
    with channel_to(sink, connections=10) as channel:
        channel.deliver([parcel(index) for index in range(4)], flight, lambda: True)
        assert sink.connections == 1
        channel.deliver([parcel(index) for index in range(200)], flight, lambda: True)
    assert len(sink.accepted) == 204
    assert 5 <= sink.most_at_once <= 10


def test_a_relay_that_bears_three_gets_three_and_nobody_is_told() -> None:
    sink, flight = Sink(ponders_s=0.005, most_connections=3), RememberingFlight()
    with channel_to(sink) as channel:
        channel.deliver([parcel(index) for index in range(300)], flight, lambda: True)
    assert len(sink.accepted) == len(flight.endings) == 300
    assert set(flight.endings.values()) == {"accepted"}
    # Five at first, and one more each time the pause after a refusal is over: no storm of attempts.
    assert sink.connections <= 12


def test_connections_outlive_the_chunk_and_are_closed_when_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_S", 0.3)
    sink, flight = Sink(), RememberingFlight()
    with channel_to(sink) as channel:
        channel.deliver([parcel(0)], flight, lambda: True)
        channel.deliver([parcel(1)], flight, lambda: True)
        assert sink.connections == 1
        wait_for(lambda: not sink.open)
        assert sink.commands[-1] == "QUIT"
        channel.deliver([parcel(2)], flight, lambda: True)
    assert set(flight.endings.values()) == {"accepted"}
    assert sink.connections == 2


# --- which address -------------------------------------------------------------------------------------------


def test_an_address_that_refuses_or_does_not_answer_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, SinkServer(Sink()) as server:
        deaf = full.getsockname()
        with ExitStack() as callers:
            # Its queue is full and nobody accepts: one more connection is never answered.
            for _ in range(3):
                caller = callers.enter_context(socket.socket())
                caller.setblocking(False)
                with suppress(BlockingIOError):
                    caller.connect(deaf)
            relay = Relay(
                host="relay.example", port=server.port, context=None, timeout_s=5.0, final_timeout_s=5.0,
                messages_per_connection=1, connections=1, dsn=False,
            )  # fmt: skip
            addresses = [("127.0.0.1", free_port()), deaf, ("127.0.0.1", server.port)]

            async def go() -> tuple[str, str]:
                owner = pool.Pool(relay, dial, asyncio.get_running_loop())
                connection, offers = await dialling.introduced(relay, await dial(False), owner, addresses)
                connection.hang_up()
                with pytest.raises(GatewayDown) as caught:
                    await dialling.introduced(relay, await dial(False), owner, addresses[:2])
                return offers.greeting, caught.value.text

            async def dial(fresh: bool) -> Terms:
                return Terms(helo="here.example", tls="none")

            assert asyncio.run(go()) == ("sink", "no connection within 0.3 s")


def test_a_name_nobody_knows_is_told() -> None:
    unknown = gateway(25).model_copy(update={"host": "nowhere.invalid"})
    with pytest.raises(GatewayDown, match=r"nowhere\.invalid:25: the name cannot be looked up"):
        SmtpChannel(unknown).deliver([parcel(0)], RememberingFlight(), lambda: True)


# --- nobody is held up ---------------------------------------------------------------------------------------


def test_a_slow_domain_holds_half_of_the_connections_and_the_others_go_on(background: ThreadPoolExecutor) -> None:
    held: list[int] = []

    class Counting(RememberingFlight):
        def accepted(self, index: int, receipt: Receipt) -> None:
            super().accepted(index, receipt)
            if index % 2 == 0:
                held.append(sum(committed % 2 for committed in self.committed))

    sink = Sink(ponders_over="slow.example", answer_now=threading.Event())
    flight = Counting()
    parcels = [to("slow.example" if index % 2 else f"fast{index % 7}.example", index) for index in range(120)]
    with channel_to(sink, connections=4) as channel:
        sending = deliver(channel, parcels, flight, background)
        wait_for(lambda: len(flight.endings) == 60)
        assert all(index % 2 == 0 for index in flight.endings)
        assert max(held) <= 2
        sink.answer_now.set()  # type: ignore[union-attr]
        assert sending.result(10) == frozenset()
    assert set(flight.endings.values()) == {"accepted"}
    assert len(set(accepted_by(sink))) == len(sink.accepted) == 120


def test_a_letter_does_not_wait_behind_anothers_final_dot(
    background: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "RELEASE_S", 0.2)
    monkeypatch.setattr(pool, "SLOW_S", 0.1)
    sink = Sink(ponders_over="slow.example", answer_now=threading.Event())
    flight = RememberingFlight()
    with channel_to(sink, connections=2) as channel:
        sending = deliver(
            channel, [to("slow.example", 0), *(to("fast.example", i) for i in (1, 2, 3))], flight, background
        )
        wait_for(lambda: flight.endings.keys() == {1, 2, 3})
        sink.answer_now.set()  # type: ignore[union-attr]
        assert sending.result(10) == frozenset()
    assert set(flight.endings.values()) == {"accepted"}
    assert sorted(accepted_by(sink)) == [f"<m{index}@x>" for index in range(4)]


def test_one_dead_gateway_holds_up_no_other(background: ThreadPoolExecutor) -> None:
    dead, well = Sink(faults={"banner": "silence"}), Sink()
    with channel_to(dead) as hanging, channel_to(well) as working:
        going, flight = threading.Event(), RememberingFlight()
        stuck = background.submit(hanging.deliver, [parcel(0)], RememberingFlight(), lambda: not going.is_set())
        wait_for(lambda: dead.connections > 0)
        working.deliver([parcel(index) for index in range(50)], flight, lambda: True)
        assert set(flight.endings.values()) == {"accepted"}
        going.set()
        assert stuck.result(10) == frozenset()


# --- answers that are long in coming ---------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SLOW_S", 0.1)
    monkeypatch.setattr(pool, "PATIENCE_S", 0.3)
    monkeypatch.setattr(pool, "RELEASE_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_a_straggler_is_left_behind_and_told_of_when_its_answer_comes() -> None:
    sink = Sink(ponders_over="slow.example", answer_now=threading.Event())
    flight, later = RememberingFlight(), RememberingFlight()
    with channel_to(sink) as channel:
        parcels = [to("fast.example", 0), to("slow.example", 1), to("fast.example", 2)]
        assert channel.deliver(parcels, flight, lambda: True) == {1}
        assert flight.endings == {0: "accepted", 2: "accepted"}
        assert channel.deliver([to("fast.example", 3)], later, lambda: True) == frozenset()
        assert later.endings == {3: "accepted"}
        sink.answer_now.set()  # type: ignore[union-attr]
        wait_for(lambda: flight.endings.get(1) == "accepted")


@pytest.mark.usefixtures("impatient")
def test_a_straggler_whose_answer_never_comes_is_unknown_and_nothing_else_is() -> None:
    flight = RememberingFlight()
    with channel_to(Sink(), final_timeout="1s") as channel:
        parcels = [parcel(0), parcel(1, stage="kept", action="silence"), parcel(2)]
        assert channel.deliver(parcels, flight, lambda: True) == {1}
        wait_for(lambda: 1 in flight.endings)
    assert flight.endings == {0: "accepted", 1: "unknown", 2: "accepted"}


@pytest.mark.usefixtures("impatient")
def test_a_straggler_at_the_close_is_unknown() -> None:
    flight = RememberingFlight()
    with channel_to(Sink()) as channel:
        assert channel.deliver([parcel(1, stage="dot", action="silence")], flight, lambda: True) == {1}
    assert flight.endings == {1: "unknown"}


@pytest.mark.usefixtures("impatient")
def test_a_gateway_that_goes_down_beside_a_straggler_does_not_call_it_unsent() -> None:
    flight = RememberingFlight()
    with channel_to(Sink(), connections=2) as channel:
        slow = [parcel(index, stage="kept", action="silence") for index in range(8)]
        parcels = [slow[0], *(parcel(index) for index in range(1, 9)), parcel(9, stage="rcpt", action="policy")]
        left = channel.deliver(parcels, flight, lambda: True)
    assert left == {0}
    assert 9 not in flight.endings


# --- asked to stop -------------------------------------------------------------------------------------------


def test_a_fenced_flight_sends_nothing_more() -> None:
    class FencedFlight(RememberingFlight):
        def commit(self, index: int) -> None:
            if index == 2:
                raise Fenced
            super().commit(index)

    sink, flight = Sink(), FencedFlight()
    with channel_to(sink, connections=1) as channel, pytest.raises(Fenced):
        channel.deliver([parcel(index) for index in range(20)], flight, lambda: True)
    assert accepted_by(sink) == ["<m0@x>", "<m1@x>"]
    assert flight.endings == {0: "accepted", 1: "accepted"}


@pytest.mark.usefixtures("impatient")
def test_a_fenced_flight_does_not_leave_an_answer_that_is_awaited_as_unsent() -> None:
    class FencedFlight(RememberingFlight):
        def commit(self, index: int) -> None:
            if index == 1:
                raise Fenced
            super().commit(index)

    flight = FencedFlight()
    with channel_to(Sink()) as channel, pytest.raises(Fenced):
        channel.deliver([parcel(0, stage="kept", action="silence"), parcel(1)], flight, lambda: True)
    assert flight.endings == {0: "unknown"}


def test_a_relay_that_never_greets_is_down_once_the_worker_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 0.2)
    started, flight = time.monotonic(), RememberingFlight()
    with (
        channel_to(Sink(faults={"banner": "silence"})) as channel,
        pytest.raises(GatewayDown, match="no connection within"),
    ):
        channel.deliver([parcel(0)], flight, lambda: time.monotonic() - started < 0.5)
    assert flight.endings == {}


def test_a_relay_that_does_not_answer_rcpt_is_given_up_some_time_after_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "ABANDON_S", 0.3)
    sink, flight = Sink(), RememberingFlight()
    with channel_to(sink, timeout="5min") as channel:
        parcels = [parcel(0, stage="rcpt", action="silence"), parcel(1)]
        channel.deliver(parcels, flight, lambda: len(sink.commands) < 3)
    assert flight.endings == {0: "deferred"}
    assert "told to stop" in flight.errors[0].text


def test_a_forked_child_has_an_engine_of_its_own() -> None:
    sink = Sink()
    with channel_to(sink) as channel:
        channel.deliver([parcel(0)], RememberingFlight(), lambda: True)
        child = os.fork()
        if child == 0:
            flight = RememberingFlight()
            own = SmtpChannel(channel._gateway)
            own.deliver([parcel(1)], flight, lambda: True)
            os._exit(0 if flight.endings == {1: "accepted"} else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert sorted(accepted_by(sink)) == ["<m0@x>", "<m1@x>"]


# --- everything at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_through_a_storm_everybody_is_sent_to_once_or_known_to_be_in_doubt(seed: int) -> None:
    """A third is greylisted, one in twenty connections breaks at a stage of its own, and four at once are too many."""
    chance = Random(seed)
    parcels = {index: parcel(index) for index in range(600)}
    for index in parcels:
        draw = chance.random()
        if draw < 0.3:
            parcels[index] = parcel(index, stage=chance.choice(["rcpt", "data", "dot"]), action="450")
        elif draw < 0.35:
            stage = chance.choice(["mail", "rcpt", "data", "body", "dot", "kept"])
            actions = ["rst", "close", "garbage"] if stage == "kept" else ["rst", "close", "garbage", "421"]
            parcels[index] = parcel(index, stage=stage, action=chance.choice(actions))
    sink, settled, rounds = Sink(most_connections=3, ponders_s=0.0005), dict[int, str](), 0
    with channel_to(sink, messages_per_connection=20) as channel:
        while parcels:
            rounds += 1
            assert rounds < 200, f"{len(parcels)} are never sent"
            flight = RememberingFlight()
            with suppress(GatewayDown):
                channel.deliver(list(parcels.values()), flight, lambda: True)
            for index, ending in flight.endings.items():
                if ending == "deferred":
                    parcels[index] = parcel(index)  # The second time it is well.
                else:
                    settled[index] = ending
                    del parcels[index]
    kept = {int(message_id.strip("<m>").partition("@")[0]) for message_id in accepted_by(sink)}
    assert len(kept) == len(sink.accepted)
    assert settled.keys() == set(range(600))
    assert set(settled.values()) == {"accepted", "unknown"}
    accepted = {index for index, ending in settled.items() if ending == "accepted"}
    assert accepted <= kept
    assert len(settled) - len(accepted) < 30
    assert sink.violations == []
