from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim
import pytest
from sqlalchemy import Engine

from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import SkipReason, TouchKind, Verdict
from reports.attribution import attribute
from reports.content import UnknownCampaign, gather
from reports.mail import compose_report
from reports.rendering import standalone_page, text_page
from store.engine import reading
from templates.dkim import keys_of
from templates.dkim_keys import new_key
from tests.conftest import WORKSPACE_YAML
from tests.reporting import ORDERS_FROM_100, World, days, spec

NOW = days(20)
HEADER = "<report.1.abc@acme.example>"


@pytest.fixture
def world(engine: Engine) -> World:
    world = World(engine)
    content = spec(
        description="Win back accounts",
        steps=[{"email": "winback"}, {"sms": "winback-sms", "wait": "3d"}],
        goal=ORDERS_FROM_100,
        cost={"fixed": "100.00"},
    )
    run = world.run(world.campaign("winback", content))
    for name, group in (
        ('=HYPERLINK("http://x")', "at_risk"),
        ("<b>Müller & Söhne</b>", "cant_lose"),
        ("Plain", "at_risk"),
    ):
        account = world.account(name)
        contact = world.contact(account)
        enrollment = world.enroll(run, contact, account, rfm_segment=group)
        mail = world.message(run, contact, enrollment)
        world.message(run, contact, enrollment, step=2, channel="sms", state="skipped", reason=SkipReason.NO_CONSENT)
        world.touch(mail, days(1), TouchKind.OPEN, Verdict.UNKNOWN)
        world.touch(mail, days(1) + timedelta(minutes=1))
        if group == "at_risk":
            world.order(account, days(2), net_minor=25_050)
    attribute(engine, now=NOW)
    return world


def composed(world: World, workspace: Workspace, **changed: Any) -> bytes:
    options = {"now": NOW, "recipients": ["boss@acme.example"], "message_id_header": HEADER, **changed}
    with reading(world.engine) as connection:
        return compose_report(connection, workspace, "winback", **options)


def parsed(data: bytes) -> EmailMessage:
    message = message_from_bytes(data, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def table(message: EmailMessage, name: str) -> list[list[str]]:
    (part,) = [part for part in message.iter_attachments() if part.get_filename() == name]
    raw = part.get_payload(decode=True)
    assert isinstance(raw, bytes)
    return list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline="")))


def test_the_headers_say_what_matters(world: World, workspace: Workspace) -> None:
    message = parsed(composed(world, workspace))
    assert message["Subject"] == "winback: 2 orders, £501, ROI +401%"
    assert message["From"] == "Acme Wholesale <hello@acme.example>"
    assert message["To"] == "boss@acme.example"
    assert message["Message-ID"] == HEADER
    assert message["Auto-Submitted"] == "auto-generated"
    for name in ("Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type"):
        assert len(message.get_all(name, [])) == 1
    assert not message.defects


def test_every_byte_keeps_to_the_rules_of_mail(world: World, workspace: Workspace) -> None:
    data = composed(world, workspace, label="simulated", recipients=["boss@bücher.example", "b@acme.example"])
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", data)
    assert data.isascii()
    assert b"\0" not in data
    assert max(len(line) for line in data.split(b"\r\n")) <= 76
    assert not any(line and not line.strip() for line in data.split(b"\r\n"))
    assert b"To: boss@xn--bcher-kva.example, b@acme.example\r\n" in data


def test_the_charts_are_inside_and_each_is_shown_once_with_its_figures_as_alternative(
    world: World, workspace: Workspace
) -> None:
    message = parsed(composed(world, workspace))
    html = message.get_body(("html",))
    assert html is not None
    page = html.get_content()
    images = {
        str(part["Content-ID"]).strip("<>"): part for part in message.walk() if part.get_content_maintype() == "image"
    }
    shown = re.findall(r'<img src="cid:([^"]+)" width="560" alt="([^"]+)"', page)
    assert {content_id for content_id, _ in shown} == set(images)
    assert len(shown) == 3
    assert all(part.get_content_disposition() == "inline" for part in images.values())
    assert "Sent 3 (50% of audience)" in shown[0][1]
    assert not re.search(r"<(?:script|link|style)\b|src=\"(?!cid:)", page)


def test_the_structure_is_what_mail_clients_expect(world: World, workspace: Workspace) -> None:
    message = parsed(composed(world, workspace))

    def shape(part: Any) -> Any:
        inner = [shape(child) for child in part.iter_parts()] if part.is_multipart() else None
        return (part.get_content_type(), inner) if inner else part.get_content_type()

    images, files = ["image/png"] * 3, ["text/csv"] * 4
    related = ("multipart/related", ["text/html", *images])
    assert shape(message) == ("multipart/mixed", [("multipart/alternative", ["text/plain", related]), *files])


def test_text_and_html_tell_the_same_figures(world: World, workspace: Workspace) -> None:
    message = parsed(composed(world, workspace))
    html, text = message.get_body(("html",)), message.get_body(("plain",))
    assert html is not None
    assert text is not None
    for said in (
        "3 messages went out and led to 2 orders worth £501.00",
        "£100.00",
        "+401%",
        "No consent for the channel",
    ):
        assert said in html.get_content()
        assert said in text.get_content()


def test_names_from_data_can_neither_break_the_page_nor_run_in_a_spreadsheet(
    world: World, workspace: Workspace
) -> None:
    message = parsed(composed(world, workspace))
    html = message.get_body(("html",))
    assert html is not None
    assert "<b>M" not in html.get_content()
    rows = table(message, "conversions.csv")
    names = [row[rows[0].index("account_name")] for row in rows[1:]]
    assert sorted(names) == ['\'=HYPERLINK("http://x")', "Plain"]
    assert {row[rows[0].index("value")] for row in rows[1:]} == {"250.50"}


def test_the_attachments_add_up_to_the_funnel(world: World, workspace: Workspace) -> None:
    message = parsed(composed(world, workspace))
    totals = {row[0]: row[2] for row in table(message, "funnel.csv") if not row[1]}
    assert (totals["audience"], totals["sent"], totals["converted"], totals["revenue"]) == ("6", "3", "2", "501.00")
    by_step = table(message, "by_step.csv")
    assert [row[:2] for row in by_step[1:]] == [["1", "1. email winback"], ["2", "2. sms winback-sms"]]
    by_segment = table(message, "by_segment.csv")
    place = by_segment[0].index("revenue_gbp")
    for kind in ("segment", "rfm_segment", "variant"):
        assert sum(float(row[place]) for row in by_segment[1:] if row[0] == kind) == 501.0


def test_composing_twice_gives_the_same_bytes(world: World, workspace: Workspace) -> None:
    assert composed(world, workspace) == composed(world, workspace)
    assert composed(world, workspace) != composed(world, workspace, message_id_header="<other@acme.example>")


def test_a_label_stands_on_top_and_in_the_subject(world: World, workspace: Workspace) -> None:
    message = parsed(composed(world, workspace, label="simulated"))
    assert message["Subject"].startswith("[simulated] winback: ")
    for kind in ("html", "plain"):
        body = message.get_body((kind,))
        assert body is not None
        assert "SIMULATED: these figures do not come from real customers." in body.get_content()


def test_a_sender_with_an_unusual_name_is_written_legally(world: World, tmp_path: Path) -> None:
    root = tmp_path / "unusual"
    root.mkdir()
    yaml = WORKSPACE_YAML.replace("{name: Acme Wholesale, email", '{name: "Grüße, \\"GmbH\\" – ein langer Name", email')
    (root / "carillon.yaml").write_text(yaml, encoding="utf-8")
    data = composed(world, load_workspace(root, {}))
    assert data.isascii()
    assert str(parsed(data)["From"].addresses[0].display_name) == 'Grüße, "GmbH" – ein langer Name'


def test_a_campaign_nobody_applied_is_named_with_the_nearest(world: World, workspace: Workspace) -> None:
    with reading(world.engine) as connection, pytest.raises(UnknownCampaign, match="did you mean 'winback'"):
        compose_report(
            connection, workspace, "winbak", now=NOW, recipients=["boss@acme.example"], message_id_header=HEADER
        )


def test_a_campaign_that_has_not_fired_yet_has_a_report_too(world: World, workspace: Workspace) -> None:
    world.campaign("later")
    with reading(world.engine) as connection:
        report = gather(connection, workspace, "later", now=NOW)
    assert "Nothing has been sent yet" in text_page(report)
    assert 'src="data:image/svg+xml;base64,' in standalone_page(report)


def test_a_report_is_signed_with_its_senders_keys(world: World, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(new_key("ed25519"), encoding="ascii")
    lines = WORKSPACE_YAML.replace(
        "email: hello@acme.example", "email: hello@acme.example, dkim: [{selector: s, key_file: key.pem}]"
    )
    assert lines != WORKSPACE_YAML
    (tmp_path / "carillon.yaml").write_text(lines, encoding="utf-8")
    workspace = load_workspace(tmp_path, {})
    data = composed(world, workspace)
    (key,) = keys_of(workspace.settings.senders["default"], tmp_path)
    assert dkim.verify(data, dnsfunc=lambda name, timeout: key.record.encode())
    assert not dkim.verify(b"From: eve@evil.example\r\n" + data, dnsfunc=lambda name, timeout: key.record.encode())
    assert parsed(data)["Subject"] == "winback: 2 orders, £501, ROI +401%"
