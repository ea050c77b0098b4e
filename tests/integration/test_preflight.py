"""The e-mails of a plan are looked at against odd people, found in the audience or made up, before anybody gets one."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from campaigns.planning import plan
from campaigns.preflight import Finding
from cli.main import build
from kernel.settings import Workspace
from tests.integration.campaigning import CAMPAIGN, NOW, SETTINGS, add_account, add_contact, make_workspace, put

TEXT = "Fine words about fine goods. " * 60
CHINA = """\
regions:
  china: {countries: [CN], subject_prefix: "AD: ", footer: "opt out: stop@acme.example"}
"""


def shop(engine: Engine, tmp_path: Path, html: str, settings: str = SETTINGS, **more: str) -> Workspace:
    """A workspace whose campaign sends this HTML to people of every kind."""
    workspace = make_workspace(tmp_path, settings=settings, hello=CAMPAIGN)
    files = {"body.html": html, "subject.txt": "Hello {{ contact.first_name }}", **more}
    for name, text in files.items():
        put(workspace.root, f"templates/hello/{name}", text)
    british = add_account(engine, "A1", country="GB", attributes={"tier": "gold"})
    chinese = add_account(engine, "A2", country="CN", attributes={"tier": "gold"})
    bare = add_account(engine, "A3", country="GB")
    add_contact(engine, "anna", british, first_name="Anna")
    add_contact(engine, "wang", chinese, first_name="王芳")
    add_contact(engine, "long", british, first_name="L" * 300)
    add_contact(engine, "bare", bare, first_name="Bare")
    add_contact(engine, "nameless", british, first_name="")
    return workspace


def findings(engine: Engine, workspace: Workspace) -> list[Finding]:
    (one,) = plan(engine, workspace, None, now=NOW)
    assert one.messages, one.warnings
    return list(one.preflight)


def about(found: list[Finding], words: str) -> Finding:
    fitting = [finding for finding in found if words in finding.message]
    assert len(fitting) == 1, [finding.message for finding in found]
    return fitting[0]


def test_a_sound_email_to_sound_people_gives_no_finding(engine: Engine, tmp_path: Path) -> None:
    workspace = shop(
        engine,
        tmp_path,
        f"<p>{TEXT}</p><a href='https://shop.example/'>Shop</a>",
        SETTINGS + CHINA,
        **{"subject.txt": "Hello {{ contact.first_name|truncate(20) }}"},
    )
    assert findings(engine, workspace) == []


def test_what_fails_for_somebody_of_the_audience_is_told_with_the_person(engine: Engine, tmp_path: Path) -> None:
    html = f"<p>{TEXT}</p>\n<p>{{{{ account.attributes.tier }}}}</p>"
    found = findings(engine, shop(engine, tmp_path, html))
    missing = about(found, "'account.attributes.tier' is undefined")
    assert missing.fails
    assert missing.message.startswith("templates/hello/body.html:2: ")
    assert missing.people == ("bare",)


def test_every_undefined_name_is_told_at_once(engine: Engine, tmp_path: Path) -> None:
    html = f"<p>{TEXT}</p>\n<p>{{{{ account.attributes.tier }}}} {{{{ contact.attributes.spent|money }}}}</p>\n"
    subject = {"subject.txt": "Hello {{ contact.attributes.nick }}"}
    html += "<p>{% for name in account.attributes.names %}{{ name }}{% endfor %}{{ contact.attributes.last }}</p>"
    found = findings(engine, shop(engine, tmp_path, html, **subject))
    names = [finding.message.partition("'")[2].partition("'")[0] for finding in found if finding.fails]
    contact, account = "contact.attributes.", "account.attributes."
    assert names == [f"{contact}nick", f"{contact}spent", f"{account}names", f"{contact}last", f"{account}tier"]
    assert "bare" in about(found, f"'{account}tier'").people


def test_what_fails_for_people_who_never_bought_is_told_although_there_may_be_none(
    engine: Engine, tmp_path: Path
) -> None:
    html = f"<p>{TEXT} {{% if contact.first_name %}}Hi{{% endif %}} {{{{ last_order.amount|money }}}}</p>"
    failing = about(findings(engine, shop(engine, tmp_path, html)), "this person has no ")
    assert failing.fails
    assert "if last_order" in failing.message


def test_a_subject_too_long_for_an_endless_name_is_found(engine: Engine, tmp_path: Path) -> None:
    subject = {"subject.txt": "{{ contact.first_name }} " * 2}
    found = findings(engine, shop(engine, tmp_path, f"<p>{TEXT}</p>", **subject))
    assert about(found, "the subject is longer than 500 characters").people == ("long",)


def test_what_would_fare_badly_is_told(engine: Engine, tmp_path: Path) -> None:
    html = f'<p>{TEXT}</p><img src="https://x.example/i.png"><a href="http://shop.example/x">x</a>'
    found = findings(engine, shop(engine, tmp_path, html))
    for words in ("body.html:1: an image without alt text", "the link http://shop.example/x is not encrypted"):
        assert not about(found, words).fails


@pytest.mark.parametrize("regions", ["", CHINA])
def test_the_law_of_a_country_is_looked_at_where_somebody_lives_there(
    engine: Engine, tmp_path: Path, regions: str
) -> None:
    found = findings(engine, shop(engine, tmp_path, f"<p>{TEXT}</p>", SETTINGS + regions))
    unlawful = [finding for finding in found if "the law of China" in finding.message]
    assert len(unlawful) == (0 if regions else 2)
    assert all(finding.people == ("wang",) for finding in unlawful)


def test_an_unfit_key_of_the_sender_is_found(engine: Engine, tmp_path: Path) -> None:
    settings = SETTINGS.replace("email: hello@acme.example", "email: hello@acme.example, dkim: [{selector: s, key: x}]")
    assert settings != SETTINGS
    found = findings(engine, shop(engine, tmp_path, f"<p>{TEXT}</p>", settings))
    assert [finding.message for finding in found if finding.fails] == [
        "the DKIM key 's' of acme.example is no private key; make one with `carillon dkim new s`"
    ]


def test_findings_are_printed_and_given_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from store.engine import open_database
    from store.schema import migrate

    monkeypatch.delenv("CARILLON_DATABASE_URL", raising=False)
    monkeypatch.setenv("CARILLON_SECRET_KEY", "k" * 64)
    at = (NOW + timedelta(days=3650)).strftime("%Y-%m-%d %H:%M")
    workspace = make_workspace(tmp_path, hello=CAMPAIGN.replace("2026-12-01 09:00", at))
    put(workspace.root, "templates/hello/body.html", f"<p>{TEXT}</p>\n<p>{{{{ account.attributes.tier }}}}</p>")
    engine = open_database(workspace.database_url)
    migrate(engine)
    add_contact(engine, "anna", add_account(engine, "A1"))

    def told(*words: str) -> Any:
        return CliRunner().invoke(build(["campaigns"]), ["plan", *words, "--workspace", str(workspace.root)])

    assert "step 1, would not leave: templates/hello/body.html:2: 'account.attributes.tier'" in told().stdout
    (found,) = [one for one in json.loads(told("--json").stdout)[0]["preflight"] if one["fails"]]
    assert (found["step"], found["people"]) == (1, ["anna"])
