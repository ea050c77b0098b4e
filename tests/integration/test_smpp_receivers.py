"""`carillon inbound` listens at every SMSC, whatever happens to the connection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine

from kernel.gateways import SmppGateway
from store.engine import open_database
from store.schema import migrate
from store.tables import inbox
from tests.integration.returning import make_workspace, rows
from tests.servers.smsc import BIND_RECEIVER, Smsc
from workers.inbound.receivers import SmppReceiver
from workers.inbound.smpp import InboxKeeper

YAML = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  smsc: {{type: smpp, host: 127.0.0.1, port: {port}, tls: none, system_id: u, password: secret}}
  sending: {{type: smpp, host: 127.0.0.1, port: {port}, tls: none, system_id: v, password: secret, receiver: false}}
"""


def test_a_receiver_binds_again_after_every_loss_and_keeps_what_comes(engine: Engine) -> None:
    with Smsc(bind_status=0x0D) as smsc:
        gateway = SmppGateway.model_validate(
            {"type": "smpp", "host": "127.0.0.1", "port": smsc.port, "tls": "none", "system_id": "u"}
            | {"password": "secret"}
        )
        with SmppReceiver("smsc", gateway, InboxKeeper(engine, "smsc"), first_wait_s=0.01):
            smsc.wait(lambda smsc: len(smsc.binds) >= 2)
            smsc.bind_status = 0
            assert smsc.deliver("447900000001", b"STOP") == 0
            smsc.hang_up()
            smsc.wait(lambda smsc: not smsc.listeners())
            assert smsc.deliver("447900000001", b"more") == 0
        assert {kind for kind, _ in smsc.binds} == {BIND_RECEIVER}
        assert smsc.unbinds == 1
    assert [meta for (meta,) in rows(engine, inbox, "meta")] == [{"kind": "inbound"}] * 2


def test_the_inbound_process_binds_where_it_should_and_unbinds_when_told_to_stop(tmp_path: Path) -> None:
    with Smsc() as smsc:
        root = tmp_path / "served"
        secrets = {"CARILLON_SECRET_KEY": "k" * 64}
        workspace = make_workspace(root, secrets, YAML.format(port=smsc.port))
        engine = open_database(workspace.database_url)
        migrate(engine)
        code = (
            "import pathlib, kernel.settings, workers.inbound.listener as door;"
            f"door.serve_bounces(kernel.settings.load_workspace(pathlib.Path({str(root)!r})))"
        )
        with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **secrets}) as process:
            assert smsc.deliver("447900000001", b"STOP", seconds=20) == 0
            process.terminate()
            assert process.wait(20) == 0
        assert smsc.binds == [(BIND_RECEIVER, "u")]
        assert smsc.unbinds == 1
        assert rows(engine, inbox, "source") == [("gateway:smsc",)]
        engine.dispose()
