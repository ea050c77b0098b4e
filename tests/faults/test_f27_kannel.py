"""F27: a real Kannel is killed or restarted while messages are handed to it; its fake SMSC says who got what.

Where Kannel is not installed the variants say so: on a laptop they are impossible, in CI they fail.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from store.engine import reading
from store.tables import contacts, messages
from tests.faults.bench import Bench
from tests.faults.checker import Facts
from tests.faults.matrix import in_turn
from tests.faults.people import seed_sms
from tests.outside.kannel import Kannel, until
from tests.seeding import states
from tests.servers.truth import Taken

pytestmark = pytest.mark.cell("F27")

MESSAGES = 80
CONNECTIONS = 4
BOTH = ["smsbox", "bearerbox"]
SETTINGS = """\
brand: {{name: Acme, postal_address: "1 Dock Road, Leeds"}}
senders:
  default: {{name: Acme, email: hello@acme.example}}
gateways:
  texts: {{type: kannel, url: "http://127.0.0.1:{port}/cgi-bin/sendsms", username: carillon, password: secret,
           sender: "36180", timeout: 5s, concurrency: 4, rate: 20/second{more}}}
limits: {{first_retry: 1s}}
"""


@pytest.fixture
def kannel(tmp_path: Path) -> Iterator[Kannel]:
    (tmp_path / "kannel").mkdir()
    with Kannel(tmp_path / "kannel") as made:
        yield made


@pytest.fixture
def kannel_bench(database_url: str, tmp_path: Path, kannel: Kannel) -> Iterator[Bench]:
    made = Bench(tmp_path / "shop", database_url, settings=SETTINGS)
    made.use_port(kannel.sendsms)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("boxes", "kill", "smsc_away"),
    in_turn("F27", [(["smsbox"], True, False), (BOTH, False, False), (BOTH, True, True)]),
    ids=["smsbox killed", "both restarted", "both killed with a full queue"],
)
def test_a_kannel_that_ends_in_mid_run_costs_no_message(
    boxes: list[str], kill: bool, smsc_away: bool, kannel: Kannel, kannel_bench: Bench, weigh: Callable[..., None]
) -> None:
    bench = kannel_bench
    seed_sms(bench.engine, MESSAGES)
    if smsc_away:
        # What Kannel takes over meanwhile it keeps in a file.
        kannel.stop("fakesmsc")
    sending = threading.Thread(target=bench.drive, kwargs={"lanes_used": ["texts"], "seconds": 90.0})
    sending.start()
    until(lambda: states(bench.engine).get("sent", 0) >= MESSAGES // 4, "a quarter to be taken over")
    for box in boxes:
        kannel.stop(box, kill=kill)
    if "bearerbox" in boxes:
        if not smsc_away:
            kannel.stop("fakesmsc")
        kannel.start_boxes()
    else:
        kannel.start_smsbox()
    if "bearerbox" in boxes:
        kannel.start_smsc()
    sending.join(100)
    assert not sending.is_alive()
    found = states(bench.engine)
    for to in _arrived(kannel, found["sent"]):
        bench.log.write(Taken(_names(bench)[to], "", to, "", time.time(), kept=True))
    # Requests that were out when smsbox died are in doubt, at most one a connection; all others arrive once.
    weigh(bench, Facts(doubtful=CONNECTIONS))
    assert set(found) <= {"sent", "in_doubt"}


def _arrived(kannel: Kannel, sent: int) -> list[str]:
    """Return to whom the SMSC was given something, once it has all that was taken over, and no more comes."""
    until(lambda: len(kannel.got(0)) >= sent, f"{sent} messages at the SMSC", seconds=40)
    before = -1
    while before != (before := len(kannel.got(0))):
        time.sleep(1.0)
    return [to for _, to, _, _ in kannel.got(0)]


def _names(bench: Bench) -> dict[str, str]:
    signer = bench.workspace.signer()
    query = select(contacts.c.phone, messages.c.id).join(messages, messages.c.contact_id == contacts.c.id)
    with reading(bench.engine) as connection:
        return {phone: signer.address_token(message) for phone, message in connection.execute(query)}
