"""Two verifiers nobody here wrote judge the signatures on e-mails a server received, by the DNS records we tell of."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kernel.settings import load_workspace
from tests.outside.programs import node_package, program
from tests.outside.sending import SECRETS, Mail, mails_of_odd_people, saved
from tests.outside.signing import ALGORITHMS, SENDER_KEYS, make_keys, records_of, verified

ONE_CLICK = {"list-unsubscribe", "list-unsubscribe-post"}


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Mail], dict[str, str]]:
    """E-mails signed with both keys, and the TXT records that belong in the DNS."""
    root = tmp_path_factory.mktemp("signed")
    make_keys(root)
    mails = mails_of_odd_people(root, more=f", bounce_domain: bounces.acme.example{SENDER_KEYS}")
    return mails, records_of(load_workspace(root, SECRETS))


@pytest.fixture(scope="module")
def reports(
    signed: tuple[list[Mail], dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Mail, dict[str, Any]]]:
    """What mailauth says of each, with SPF and DMARC as a careful sender publishes them."""
    mails, records = signed
    folder = tmp_path_factory.mktemp("mailauth")
    dns = folder / "dns.json"
    answers: dict[str, Any] = {name: {"TXT": [[record]]} for name, record in records.items()}
    answers["bounces.acme.example"] = {"TXT": [["v=spf1 ip4:192.0.2.25 -all"]]}
    answers["_dmarc.acme.example"] = {"TXT": [["v=DMARC1; p=reject; adkim=s; aspf=r"]]}
    dns.write_text(json.dumps(answers), encoding="utf-8")
    return [(mail, mailauth(folder / name, dns, mail.sender)) for name, mail in saved(mails, folder).items()]


def mailauth(path: Path, dns: Path, sender: str) -> dict[str, Any]:
    done = subprocess.run(
        [
            *(program("node", debian="nodejs npm"), str(node_package("mailauth") / "bin" / "mailauth.js"), "report"),
            *("--dns-cache", str(dns), "--client-ip", "192.0.2.25", "--helo", "mta.acme.example", "--sender", sender),
            str(path),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_dkimpy_finds_both_signatures_whole(signed: tuple[list[Mail], dict[str, str]]) -> None:
    mails, records = signed
    for mail in mails:
        assert verified(mail.body, records) == [True, True], mail.name


def test_dkimpy_sees_what_is_changed_on_the_way(signed: tuple[list[Mail], dict[str, str]]) -> None:
    """Also that the judge above is not one that says yes to everything."""
    mails, records = signed
    body = mails[0].body
    for harmed in (
        body.replace(b"Subject: ", b"Subject: Re: ", 1),
        body.replace(b"From: ", b"From: evil@evil.example\r\nFrom: ", 1),
        re.sub(rb"List-Unsubscribe: .*\r\n", b"", body, count=1),
        body.replace(b"Dear", b"Deer"),
    ):
        assert harmed != body
        assert verified(harmed, records) == [False, False]


def test_mailauth_passes_both_signatures_spf_and_dmarc(reports: list[tuple[Mail, dict[str, Any]]]) -> None:
    for mail, report in reports:
        results = report["dkim"]["results"]
        assert sorted(one["selector"] for one in results) == sorted(ALGORITHMS), mail.name
        assert [one["status"]["result"] for one in results] == ["pass", "pass"], (mail.name, results)
        assert [one["status"]["aligned"] for one in results] == ["acme.example"] * 2, mail.name
        assert report["spf"]["status"]["result"] == "pass", (mail.name, report["spf"])
        assert report["dmarc"]["status"]["result"] == "pass", (mail.name, report["dmarc"])
        assert report["dmarc"]["alignment"]["spf"]["result"], "the bounce domain is of the sender's domain"


def test_both_fields_of_one_click_are_covered(reports: list[tuple[Mail, dict[str, Any]]]) -> None:
    """RFC 8058 section 4: a mailbox provider shows the button only then."""
    for mail, report in reports:
        for one in report["dkim"]["results"]:
            covered = {name.strip().lower() for name in one["signingHeaders"]["keys"].split(":")}
            assert covered >= ONE_CLICK | {"from", "subject", "date", "to", "message-id"}, mail.name
