"""No lane waits for another, and no chunk for its stragglers."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, func, select

from kernel.settings import Workspace, load_workspace
from store.engine import reading
from store.tables import claims, messages
from tests.acceptance.processes import wait_for
from tests.seeding import SPEC, seed_messages, states
from tests.servers.smtp_sink import Sink, SinkServer
from workers.drain import Drain

A_WHILE = timedelta(seconds=30)
GATEWAY = "  {name}: {{type: smtp, host: 127.0.0.1, port: {port}, tls: none, timeout: 5s, final_timeout: 60s}}\n"


def workspace_with(root: Path, **ports: int) -> Workspace:
    gateways = "".join(GATEWAY.format(name=name, port=port) for name, port in ports.items())
    root.mkdir(exist_ok=True)
    (root / "carillon.yaml").write_text(
        'brand: {name: Acme, postal_address: "1 Dock Road, Leeds"}\n'
        "senders:\n  default: {name: Acme, email: hello@acme.example}\n"
        f"gateways:\n{gateways}",
        encoding="utf-8",
    )
    return load_workspace(root, {"CARILLON_SECRET_KEY": "k" * 64})


def lane_spec(name: str) -> dict[str, object]:
    return {**SPEC, "steps": [{"email": "hello", "sender": "default", "gateway": name}]}


def sent_by(engine: Engine) -> dict[str, int]:
    with reading(engine) as connection:
        query = select(messages.c.lane, func.count()).where(messages.c.state == "sent").group_by(messages.c.lane)
        return {row[0]: row[1] for row in connection.execute(query)}


def test_a_gateway_that_never_answers_keeps_no_other_waiting(engine: Engine, tmp_path: Path) -> None:
    with SinkServer(Sink(faults={"banner": "silence"})) as mute, SinkServer(Sink()) as well:
        drain = Drain(engine, workspace_with(tmp_path / "shop", mute=mute.port, well=well.port))
        seed_messages(engine, 3, lane="mute", spec=lane_spec("mute"), name="mute")
        stop = threading.Event()
        # One process, woken for the mute lane only.
        serving = threading.Thread(target=lambda: drain.serve("mute", budget=A_WHILE, stopping=stop.is_set))
        serving.start()
        wait_for(lambda: mute.sink.connections > 0, "a connection to the mute gateway")
        seed_messages(engine, 40, lane="well", spec=lane_spec("well"), name="well")
        wait_for(lambda: sent_by(engine) == {"well": 40}, "the other lane's messages")
        assert serving.is_alive(), "the mute lane still holds the process"
        stop.set()
        serving.join()
        drain.close()
    assert states(engine) == {"planned": 3, "sent": 40}


def test_what_is_answered_late_holds_up_nothing_and_is_written_down_in_the_end(engine: Engine, tmp_path: Path) -> None:
    answer = threading.Event()
    with SinkServer(Sink(ponders_over="late.example", answer_now=answer)) as server:
        drain = Drain(engine, workspace_with(tmp_path / "shop", relay=server.port))
        seed_messages(engine, 1, address="ann{n}@late.example", name="late")
        seed_messages(engine, 20, name="prompt")
        assert drain.run("relay", budget=A_WHILE, stopping=lambda: False) == 20
        # Everybody else is written down, and the lane is free, while one answer is still awaited.
        assert states(engine) == {"sent": 20, "claimed": 1}
        seed_messages(engine, 5, name="later")
        assert drain.run("relay", budget=A_WHILE, stopping=lambda: False) == 5
        assert states(engine) == {"sent": 25, "claimed": 1}
        answer.set()
        wait_for(lambda: states(engine) == {"sent": 26}, "the last answer")
        drain.close()
    with reading(engine) as connection:
        assert connection.execute(select(claims)).all() == []
    assert len({message_id for message_id, _, _ in server.sink.accepted}) == 26


def test_a_process_that_ends_while_an_answer_is_awaited_leaves_it_in_doubt(engine: Engine, tmp_path: Path) -> None:
    answer = threading.Event()
    with SinkServer(Sink(ponders_over="late.example", answer_now=answer)) as server:
        drain = Drain(engine, workspace_with(tmp_path / "shop", relay=server.port))
        seed_messages(engine, 1, address="ann{n}@late.example", name="late")
        seed_messages(engine, 3, name="prompt")
        assert drain.run("relay", budget=A_WHILE, stopping=lambda: False) == 3
        drain.close()
        answer.set()
    assert states(engine) == {"sent": 3, "in_doubt": 1}
    with reading(engine) as connection:
        assert connection.execute(select(claims)).all() == []
