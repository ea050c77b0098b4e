"""A MIME parser nobody here wrote reads what a server received, and the byte rules hold for every one of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.outside.programs import node
from tests.outside.sending import ODD_NAMES, Mail, saved
from tests.servers.byte_rules import byte_problems


@pytest.fixture(scope="module")
def parsed(mails: list[Mail], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Mail, dict[str, Any]]]:
    """Each e-mail and what mailparser made of it."""
    folder = tmp_path_factory.mktemp("mails")
    by_file = saved(mails, folder)
    found = node("parse.mjs", folder, needs="mailparser")
    assert found.keys() == by_file.keys()
    return [(mail, found[name]) for name, mail in by_file.items()]


def test_every_byte_keeps_to_the_rules(mails: list[Mail]) -> None:
    assert {mail.name: problems for mail in mails if (problems := byte_problems(mail.body))} == {}


def test_sender_recipient_and_both_bodies_are_found(parsed: list[tuple[Mail, dict[str, Any]]]) -> None:
    for mail, found in parsed:
        assert [one["address"] for one in found["to"]] == [mail.recipient], mail.name
        assert len(found["from"]) == 1, mail.name
        assert found["from"][0]["name"], mail.name
        assert found["subject"], mail.name
        assert found["date"], mail.name
        assert len(found["text"].strip()) > 40, mail.name
        assert "<a " in found["html"], mail.name
        assert not [part for part in found["attachments"] if not part["related"]], mail.name


def test_a_name_arrives_as_it_is_whatever_its_letters(parsed: list[tuple[Mail, dict[str, Any]]]) -> None:
    odd = [(mail, found) for mail, found in parsed if mail.name.startswith("odd")]
    assert len(odd) == len(ODD_NAMES)
    by_recipient = {mail.recipient: found for mail, found in odd}
    for number, name in enumerate(ODD_NAMES, start=1):
        found = by_recipient[f"user{number}@customer.example"]
        assert f"Dear {name}," in found["text"]
        assert found["from"][0]["name"] == "Acme & Söhne"


def test_one_click_is_found_by_the_other_parser(parsed: list[tuple[Mail, dict[str, Any]]]) -> None:
    """RFC 8058: one web address, the literal post value, and the same address in the footer of both bodies."""
    for mail, found in parsed:
        url = found["unsubscribe"]["url"]
        assert url.startswith(("https://links.acme.example/u/", "http://127.0.0.1:")), mail.name
        assert found["unsubscribePost"] == {"name": "List-Unsubscribe=One-Click"}, mail.name
        assert url in found["text"], mail.name
        assert url in found["html"], mail.name
        assert found["listId"]["name"].endswith((".acme.example", ".northgate.example")), mail.name
