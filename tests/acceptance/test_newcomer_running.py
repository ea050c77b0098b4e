"""An hour of a newcomer's mistakes, while everything runs: each tells its reason, nobody is lost or told twice."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from kernel.settings import load_workspace
from tests.acceptance.newcomer import BUYERS, GATEWAYS, WORKSPACE, Shop, copy_of, free_port
from tests.acceptance.processes import wait_for
from tests.servers.smtp_sink import Sink, SinkServer
from workers.embedded import answers

TOKEN = "a-token-of-the-newcomer"
PASSWORD = "correct horse"
MORE_GATEWAYS = """\
  post: {{type: smtp, host: 127.0.0.1, port: {post}, tls: none}}
  locked: {{type: smtp, host: 127.0.0.1, port: {locked}, tls: none, username: acme, password: "${{RELAY_PASSWORD}}"}}
"""
BODY = '<p>Dear {{ contact.first_name }}, look <a href="https://shop.example/new">what is new</a>.</p>\n'


class Running:
    """A workspace with Redis, worker, scheduler and web, and the relays it sends by."""

    def __init__(self, shop: Shop, relay_port: int, web_port: int, post: Sink) -> None:
        self.shop = shop
        self.relay_port = relay_port
        self.web_port = web_port
        self.post = post

    def campaign(self, name: str, *, gateway: str = "post", segment: str = "buyer", body: str = BODY) -> None:
        """Write a campaign whose time has just come, and its template."""
        at = datetime.now(UTC) - timedelta(minutes=2)
        self.shop.write(
            f"campaigns/{name}.yaml",
            f'audience: {{segment: {segment}}}\nschedule: {{at: "{at:%Y-%m-%d %H:%M}", zone: UTC}}\n'
            f"steps:\n  - email: {name}\n    gateway: {gateway}\n",
        )
        self.shop.write(f"templates/{name}/subject.txt", f"About {name}\n")
        self.shop.write(f"templates/{name}/body.html", body)

    def states(self, name: str) -> Counter[str]:
        """Count a campaign's messages by state."""
        rows = self.shop.ask(
            "SELECT m.state FROM messages m JOIN runs r ON r.id = m.run_id"
            " JOIN campaigns c ON c.id = r.campaign_id WHERE c.name = ?",
            name,
        )
        return Counter(state for (state,) in rows)

    def wait_for_states(self, name: str, **wanted: int) -> None:
        """Return once a campaign's messages stand so."""
        wait_for(lambda: self.states(name) == wanted, f"{name} to be {wanted}, not {self.states(name)}", seconds=40)

    def books(self, name: str) -> dict[str, Any]:
        """Return the figures of the campaign's run, once it is closed; nobody may be missing in them."""
        query = (
            "SELECT count(*) FROM runs r JOIN campaigns c ON c.id = r.campaign_id WHERE c.name = ? AND r.state = 'done'"
        )
        wait_for(lambda: self.shop.ask(query, name) == [(1,)], f"the run of {name} to be done")
        run: dict[str, Any] = self.shop.told("runs", "show", name)
        ended = run["sent"] + run["failed"] + sum(run["skipped"].values()) + run["held_out"]
        assert run["audience"] == ended + run["pending"] + run["in_doubt"]
        return run

    def call(self, path: str, data: Any = None, **headers: str) -> tuple[int, str]:
        """Ask the web process; data is posted, as JSON unless it is bytes."""
        body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.web_port}{path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


def received(sink: Sink, subject: str) -> list[str]:
    """Return who got the e-mails of a subject from a relay, everybody as often as they did."""
    pairs = zip(list(sink.accepted), list(sink.bodies), strict=False)
    return sorted(to for (_, _, to), body in pairs if message_from_bytes(body)["Subject"] == subject)


@pytest.fixture(scope="module")
def running(prepared_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Everything but the relay named `relay`, whose port is closed; the password of `locked` is wrong."""
    shop = copy_of(prepared_shop, tmp_path_factory.mktemp("running") / "shop")
    post, locked = Sink(), Sink(auth=("acme", PASSWORD))
    relay, web = free_port(), free_port()
    with SinkServer(post) as post_server, SinkServer(locked) as locked_server:
        gateways = (GATEWAYS + MORE_GATEWAYS).format(relay=relay, post=post_server.port, locked=locked_server.port)
        shop.write("carillon.yaml", WORKSPACE.format(gateways=gateways, web=web))
        shop.environment |= {"CARILLON_API_TOKEN": TOKEN, "RELAY_PASSWORD": "wrong horse"}
        try:
            shop.start("redis", "redis")
            shop.start("worker", "worker", "--concurrency", "1")
            shop.start("scheduler", "scheduler")
            shop.start("web", "web")
            house = Running(shop, relay, web, post)
            wait_for(lambda: "web_ready" in shop.log("web"), "web")
            wait_for(lambda: "scheduler_ready" in shop.log("scheduler"), "the scheduler")
            wait_for(lambda: "worker_ready" in shop.log("worker"), "the worker")
            yield house
            for name in ("worker", "scheduler", "web"):
                assert shop.terminate(name) == 0
        except BaseException:
            print(*(f"--- {name}\n{shop.log(name)[-3000:]}" for name in ("worker", "scheduler", "web")), sep="\n")
            raise
        finally:
            shop.stop_all()


def test_messages_of_a_gateway_that_is_down_wait_and_all_leave_once_when_it_is_up(running: Running) -> None:
    shop = running.shop
    running.campaign("storm", gateway="relay")
    shop.done("apply", "storm")
    wait_for(lambda: shop.ask("SELECT name FROM lanes WHERE failures > 0") == [("relay",)], "the gateway to be closed")
    (lane,) = shop.told("lanes", "list")
    assert lane["name"] == "relay"
    assert f"127.0.0.1:{running.relay_port}" in lane["reason"]
    assert "Connection refused" in lane["reason"]
    status = shop.told("status")
    assert [(one["name"], one["due"], one["reason"]) for one in status["lanes"]] == [("relay", 4, lane["reason"])]
    assert status["balanced"] is True
    assert f"fail gateway relay: 127.0.0.1:{running.relay_port}: " in shop.doctor()
    relay = Sink()
    with SinkServer(relay, running.relay_port):
        # A worker whose turn to try has come may be quicker than the command.
        assert shop.done("lanes", "open", "relay").strip() in ("relay is open again", "relay was not closed")
        running.wait_for_states("storm", sent=4)
        assert running.books("storm")["sent"] == 4
    assert received(relay, "About storm") == BUYERS
    assert shop.told("lanes", "list") == []


def test_a_wrong_password_closes_the_gateway_for_long_and_the_right_one_sends_everything_once(running: Running) -> None:
    shop = running.shop
    running.campaign("secret", gateway="locked")
    shop.done("apply", "secret")
    wait_for(lambda: shop.ask("SELECT 1 FROM lanes WHERE name = 'locked' AND failures > 0"), "the gateway to be closed")
    (lane,) = shop.told("lanes", "list")
    assert "535" in lane["reason"]
    assert datetime.fromisoformat(lane["closed_until"]) > datetime.now(UTC) + timedelta(minutes=5)
    told = shop.doctor()
    assert re.search(r"fail gateway locked: .*535", told)
    assert "check host, port, tls, username and password with your provider; messages wait meanwhile" in told
    assert "horse" not in told + lane["reason"] + shop.log("worker")
    assert running.states("secret") == {"planned": 4}
    assert shop.terminate("worker") == 0
    shop.environment["RELAY_PASSWORD"] = PASSWORD
    shop.start("worker", "worker", "--concurrency", "1")
    assert "locked is open again" in shop.done("lanes", "open", "locked")
    running.wait_for_states("secret", sent=4)
    assert running.books("secret")["sent"] == 4


def test_a_variable_one_person_lacks_fails_that_one_message_and_no_other(running: Running) -> None:
    shop = running.shop
    running.campaign("worth", body="<p>Hello.</p>\n<p>Your last order was worth {{ last_order.amount|number }}.</p>\n")
    shop.done("apply", "worth")
    running.wait_for_states("worth", sent=3, failed=1)
    run = running.books("worth")
    assert (run["sent"], run["failures"]) == (3, {"template_error": 1})
    assert received(running.post, "About worth") == BUYERS[:3]
    ((message,),) = shop.ask("SELECT id FROM messages WHERE state = 'failed'")
    life = shop.told("ledger", "show", str(message))
    assert (life["contact"], life["reason"]) == ("C-4", "template_error")
    assert "templates/worth/body.html:2: 'amount' is asked of nothing: this person has no last_order" in life["reply"]
    assert "(write {% if last_order %} around it)" in life["reply"]


def test_people_who_never_consented_are_all_skipped_and_accounted_for(running: Running) -> None:
    running.campaign("hasty", segment="clerk")
    running.shop.done("apply", "hasty")
    running.wait_for_states("hasty", skipped=2)
    run = running.books("hasty")
    assert (run["audience"], run["sent"], run["skipped"]) == (2, 0, {"no_consent": 2})
    assert received(running.post, "About hasty") == []


def test_a_run_for_an_empty_segment_is_done_and_says_so(running: Running) -> None:
    running.shop.write("segments/nobody.yaml", "subject: contact\nwhere: {attribute: {name: role, eq: Buyer}}\n")
    running.campaign("empty", segment="nobody")
    running.shop.done("apply", "empty")
    run = running.books("empty")
    assert (run["audience"], run["sent"], run["pending"]) == (0, 0, 0)
    assert run["note"] != ""


def test_pausing_before_the_campaign_fires_holds_everything_and_resuming_sends_it_once(running: Running) -> None:
    shop = running.shop
    assert shop.terminate("scheduler") == 0
    running.campaign("second", body="<p>The old words.</p>")
    shop.done("apply", "second")
    shop.done("campaigns", "pause", "second", "--reason", "prices are wrong")
    shop.start("scheduler", "scheduler")
    running.campaign("other")
    shop.done("apply", "other")
    running.wait_for_states("other", sent=4)
    assert running.states("second") == {}
    shown = shop.told("campaigns", "show", "second")
    assert (shown["state"], shown["state_reason"]) == ("paused", "prices are wrong")
    shop.edit("templates/second/body.html", ("old words", "new words"))
    shop.done("campaigns", "resume", "second")
    running.wait_for_states("second", sent=4)
    assert received(running.post, "About second") == BUYERS
    bodies = [message_from_bytes(body, policy=policy.default) for body in running.post.bodies]
    texts = [str(mail.get_body(("plain",))) for mail in bodies if mail["Subject"] == "About second"]
    assert all("The old words." in text for text in texts), "a template edited after apply counts from the next apply"


def test_a_wrong_token_stores_nothing_and_the_right_one_stores_once(running: Running) -> None:
    order = {"order": "W-1", "account": "A-1", "ordered_at": "2026-11-01T10:00:00Z", "amount": "99.50"}
    facts = running.shop.ask("SELECT * FROM orders ORDER BY id")
    for headers in ({}, {"Authorization": "Bearer a-token-of-somebody"}):
        status, answer = running.call("/v1/orders", order, **headers)
        assert status == 401
        assert "send the API token as `Authorization: Bearer …`" in json.loads(answer)["error"]
    assert running.shop.ask("SELECT * FROM orders ORDER BY id") == facts
    right = {"Authorization": f"Bearer {TOKEN}"}
    status, answer = running.call("/v1/orders", order, **right)
    assert (status, json.loads(answer)["new"]) == (200, 1)
    stored = running.shop.ask("SELECT * FROM orders ORDER BY id")
    assert len(stored) == len(facts) + 1
    status, answer = running.call("/v1/orders", order, **right)
    assert (status, json.loads(answer)) == (200, {"new": 0, "changed": 0, "unchanged": 1, "refused": []})
    assert running.shop.ask("SELECT * FROM orders ORDER BY id") == stored


def test_a_forged_unsubscribe_link_unsubscribes_nobody(running: Running) -> None:
    shop = running.shop
    running.campaign("farewell")
    shop.done("apply", "farewell")
    running.wait_for_states("farewell", sent=4)
    links = {}
    for (_, _, to), body in zip(running.post.accepted, running.post.bodies, strict=True):
        mail = message_from_bytes(body, policy=policy.default)
        if mail["Subject"] == "About farewell":
            links[to] = re.sub(r".*<https?://[^/]+(/u/[^>]+)>.*", r"\1", str(mail["List-Unsubscribe"]))
    mine, theirs = links[BUYERS[0]], links[BUYERS[1]]
    forged = [mine[:-1] + ("A" if mine[-1] != "A" else "B"), theirs[:7] + mine[7:], "/u/1", mine.replace("/u/", "/p/")]
    for path in forged:
        status, page = running.call(path, b"List-Unsubscribe=One-Click")
        assert status == 404, (path, page)
    assert running.call(mine)[0] == 200, "looking alone changes nothing"
    assert shop.ask("SELECT * FROM suppressions") == []
    assert running.call(mine, b"List-Unsubscribe=One-Click") == (200, "unsubscribed\n")
    assert shop.ask("SELECT address FROM suppressions") == [(BUYERS[0],)]


def test_without_redis_worker_and_scheduler_wait_and_send_everything_once_it_is_there(
    prepared_shop: Shop, tmp_path: Path
) -> None:
    shop = copy_of(prepared_shop, tmp_path / "shop")
    post = Sink()
    with SinkServer(post) as server:
        shop.write("carillon.yaml", WORKSPACE.format(gateways=GATEWAYS.format(relay=server.port), web=free_port()))
        house = Running(shop, server.port, 0, post)
        house.campaign("early", gateway="relay")
        shop.done("apply", "early")
        try:
            shop.start("worker", "worker", "--concurrency", "1")
            shop.start("scheduler", "scheduler")
            house.wait_for_states("early", planned=4)
            wait_for(lambda: "Cannot connect to redis+socket://" in shop.log("worker"), "the worker to complain")
            wait_for(lambda: "redis" in shop.log("scheduler"), "the scheduler to complain")
            status = shop.told("status")
            assert (status["due_now"], status["balanced"]) == (4, True)
            shop.start("redis", "redis")
            wait_for(lambda: answers(load_workspace(shop.root, {})), "Redis")
            house.wait_for_states("early", sent=4)
        finally:
            shop.stop_all()
    assert received(post, "About early") == BUYERS
