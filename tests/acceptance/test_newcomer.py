"""An hour of a newcomer's mistakes, at the desk: each is told with its place and remedy, and loses nothing."""

from __future__ import annotations

import csv
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.newcomer import DATA, Shop, copy_of

CAMPAIGN = """\
audience: {segment: buyer}
schedule: {at: "2099-01-01 09:00"}
steps:
  - email: winback
"""


@pytest.fixture
def shop(prepared_shop: Shop, tmp_path: Path) -> Shop:
    """A workspace of the test's own."""
    return copy_of(prepared_shop, tmp_path / "shop")


# --- in campaign files ---------------------------------------------------------------------------------------


def test_misspelt_keys_are_all_told_at_once_with_the_word_that_was_meant(shop: Shop) -> None:
    shop.edit("campaigns/winback.yaml", ("description:", "descripton:"), ("per_account:", "per_acount:"))
    for command in ("validate", "apply"):
        said = shop.refused(command)
        assert "campaigns/winback.yaml:1:1: unknown key 'descripton' (did you mean 'description'?)" in said
        assert "campaigns/winback.yaml:5:3: unknown key 'per_acount' (did you mean 'per_account'?)" in said
        assert "2 problem(s) found; nothing was changed." in said


def test_an_unquoted_time_a_country_called_no_and_a_phone_number_need_quotes(shop: Shop) -> None:
    shop.write(
        "campaigns/traps.yaml",
        "audience: {segment: buyer}\nschedule: {at: 09:00}\nutm: {term: NO}\nsteps:\n  - email: winback\n"
        "report: {to: [+447700900123], after: 7d}\n",
    )
    said = shop.refused("apply", "traps")
    assert "campaigns/traps.yaml:2:16: 09:00 needs quotes: many YAML readers take it for a number in base 60" in said
    assert '(write "09:00")' in said
    assert (
        'campaigns/traps.yaml:3:13: NO needs quotes: many YAML readers take it for true or false (write "NO")' in said
    )
    assert "campaigns/traps.yaml:6:15: +447700900123 needs quotes: YAML takes it for a number" in said


def test_an_unknown_segment_an_unknown_template_and_a_missing_sms_gateway_are_named(shop: Shop) -> None:
    shop.edit("campaigns/winback.yaml", ("segment: at-risk", "segment: at-rsik"), ("email: winback", "email: winbak"))
    shop.write("campaigns/texts.yaml", CAMPAIGN.replace("email: winback", "sms: nudge"))
    said = shop.refused("apply")
    assert "campaigns/winback.yaml:3:12: unknown segment 'at-rsik' (did you mean 'at-risk'?)" in said
    assert "campaigns/winback.yaml:11:12: unknown e-mail template 'winbak' (did you mean 'winback'?)" in said
    assert "campaigns/texts.yaml:4:5: the workspace has no sms gateway (add one of type http, kannel, smpp, " in said
    assert "campaigns/texts.yaml:4:10: unknown SMS template 'nudge' (make templates/nudge.txt)" in said


def test_a_missing_template_file_is_named_with_what_to_write(shop: Shop) -> None:
    (shop.root / "templates/winback/body.html").unlink()
    assert "templates/winback/body.html: is missing (write body.html or body.mjml)" in shop.refused("apply")
    (shop.root / "templates/winback/subject.txt").unlink()
    said = shop.refused("apply")
    assert "unknown e-mail template 'winback' (make templates/winback/subject.txt)" in said


def test_misspelt_template_variables_are_told_in_every_file_before_anything_is_sent(shop: Shop) -> None:
    shop.edit("templates/winback/subject.txt", ("account.name", "acount.name"))
    shop.edit(
        "templates/winback/body.html", ("account.name", "account.nmae"), ("contact.first_name", "contact.firstname")
    )
    for command in ("validate", "plan"):
        said = shop.refused(command)
        assert "templates/winback/subject.txt:1:1: 'acount' is undefined (did you mean 'account'?)" in said
        assert "templates/winback/body.html:5:1: 'contact.firstname' is undefined (did you mean 'first_name'?)" in said
        assert "templates/winback/body.html:7:1: 'account.nmae' is undefined (did you mean 'name'?)" in said


def test_a_tab_is_told_with_its_line(shop: Shop) -> None:
    shop.write("campaigns/tabbed.yaml", "audience:\n\tsegment: buyer\n")
    said = shop.refused("apply")
    assert "campaigns/tabbed.yaml:2:1: is not YAML" in said
    assert "(YAML does not allow tabs here; use spaces)" in said


def test_segments_that_go_round_in_a_circle_are_told_with_the_way_round(shop: Shop) -> None:
    shop.write("segments/hens.yaml", "subject: account\nwhere: {segment: eggs}\n")
    shop.write("segments/eggs.yaml", "subject: account\nwhere: {segment: hens}\n")
    for command in (("segments", "refresh"), ("apply",)):
        said = shop.refused(*command)
        assert "segments/eggs.yaml:2:" in said
        assert "circle" in said


def test_a_campaign_that_is_not_there_is_answered_with_those_that_are(shop: Shop) -> None:
    assert "there is no winbck.yaml (did you mean 'winback'?)" in shop.refused("apply", "winbck")
    assert "no campaign 'winback' is applied" in shop.refused("campaigns", "pause", "winback")
    assert "apply it first with `carillon apply`" in shop.refused("report", "winback")


# --- in data ----------------------------------------------------------------------------------------------------


def test_a_bad_address_is_set_aside_with_line_and_reason_and_the_good_rows_are_kept(shop: Shop) -> None:
    good = DATA["contacts"] + "C-7,A-3,gil@canvas.example,Gil,Gray,buyer\n"
    bad = good + "C-8,A-4,hal(at)dock.example,Hal,Hunt,buyer\nC-9,A-44,ida@dock.example,Ida,Innes,buyer\n"
    shop.write("data/contacts.csv", bad)
    answer = shop.carillon("import", "contacts")
    assert answer.returncode == 3
    (rejects,) = (shop.root / ".carillon/rejects").iterdir()
    assert f"2 row(s) rejected; they stand with their reasons in {rejects}" in answer.stderr.replace("\n", "")
    with rejects.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["line"], row["contact_no"], row["reason"]) for row in rows] == [
        ("9", "C-8", "email: 'hal(at)dock.example' is not an e-mail address"),
        ("10", "C-9", "unknown account 'A-44'"),
    ]
    people = [name for (name,) in shop.ask("SELECT external_id FROM contacts ORDER BY external_id")]
    assert people == [f"C-{n}" for n in range(1, 8)]
    shop.edit("data/contacts.csv", ("(at)", "@"), ("A-44", "A-4"))
    mended = shop.told("import", "contacts")
    assert (mended["new"], mended["unchanged"], mended["rejected"]) == (2, 7, 0)


def test_a_wrong_column_name_is_told_with_its_place_in_sources_yaml(shop: Shop) -> None:
    shop.edit("sources.yaml", ("email: email", "email: e-mail"))
    said = shop.refused("import", "contacts")
    assert "sources.yaml:20:14: contacts.csv has no column 'e-mail' (did you mean 'email'?)" in said
    shop.edit("sources.yaml", ("email: e-mail", "emial: email"))
    assert "sources.yaml:20:7: unknown key 'emial' (did you mean 'email'?)" in shop.refused("import", "contacts")


def test_a_file_that_does_not_exist_and_a_source_nobody_mapped_are_named(shop: Shop) -> None:
    assert "there is no file exports/contacts.csv" in shop.refused("import", "contacts", "exports/contacts.csv")
    said = shop.refused("import", "contcats")
    assert "sources.yaml has no source 'contcats' (did you mean 'contacts'?)" in said


def test_a_sheet_saved_in_the_old_encoding_is_refused_as_a_whole(shop: Shop) -> None:
    (shop.root / "data/accounts.csv").write_bytes("account_no,company,country\nA-9,Müller,DE\n".encode("latin-1"))
    said = shop.refused("import", "accounts")
    assert "accounts.csv: is not UTF-8 (byte 0xfc) (save it as UTF-8, in Excel: “CSV UTF-8”)" in said


# --- in the workspace and its surroundings ------------------------------------------------------------------------


def test_a_folder_without_carillon_yaml_is_no_workspace(shop: Shop, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    answer = shop.carillon("plan", root=elsewhere)
    assert answer.returncode == 1
    assert f"{elsewhere} is not a workspace: it has no carillon.yaml" in answer.stderr
    assert f"make one with `carillon init {elsewhere}`" in answer.stderr
    assert list(elsewhere.iterdir()) == []


def test_init_refuses_a_folder_that_is_a_workspace_already(shop: Shop) -> None:
    said = shop.refused("init", str(shop.root))
    assert f"{shop.root} is a workspace already: it has a carillon.yaml; choose another folder" in said


def test_a_variable_the_environment_lacks_is_named_where_carillon_yaml_wants_it(shop: Shop) -> None:
    shop.edit(
        "carillon.yaml", ("    tls: none", '    tls: none\n    username: acme\n    password: "${RELAY_PASSWORD}"')
    )
    complaint = "carillon.yaml:13:15: the environment has no RELAY_PASSWORD (export RELAY_PASSWORD=… before you start"
    assert complaint in shop.refused("worker")
    assert complaint in shop.doctor()
    shop.done("plan", RELAY_PASSWORD="there now")


def test_a_secret_key_that_is_too_short_stops_whatever_signs_links(shop: Shop) -> None:
    shop.write("campaigns/winback.yaml", CAMPAIGN)
    for command in ("plan", "worker"):
        said = shop.refused(command, CARILLON_SECRET_KEY="short")
        assert "CARILLON_SECRET_KEY must hold at least 32 characters; make one with `openssl rand -hex 32`" in said
        assert "short" not in said.replace("too short", "")
    assert "fail secret key: CARILLON_SECRET_KEY must hold at least 32" in shop.doctor(CARILLON_SECRET_KEY="short")


def test_a_database_of_another_kind_is_refused_by_name(shop: Shop) -> None:
    url = "mysql://acme:hush@db.example/carillon"
    said = shop.refused("apply", CARILLON_DATABASE_URL=url)
    assert "Carillon keeps its facts in SQLite or PostgreSQL, not in mysql" in said
    told = shop.doctor(CARILLON_DATABASE_URL=url)
    assert "fail database: Carillon keeps its facts in SQLite or PostgreSQL" in told
    assert "→ correct CARILLON_DATABASE_URL" in told
    assert "hush" not in said + told


def test_a_taken_port_stops_web_and_up_before_anything_else_starts(shop: Shop) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = (shop.root / "carillon.yaml").read_text(encoding="utf-8")
        shop.write("carillon.yaml", text[: text.index("web:")] + f"web: {{port: {port}}}\n")
        for command in ("web", "up"):
            said = shop.refused(command)
            assert f"web.port: cannot listen on 127.0.0.1:{port}: Address already in use" in said
            assert "set another web.port in carillon.yaml" in said
    assert not (shop.root / ".carillon/redis.sock").exists()


def test_a_misspelt_gateway_cannot_be_opened(shop: Shop) -> None:
    said = shop.refused("lanes", "open", "rellay")
    assert "carillon.yaml has no gateway 'rellay' (did you mean 'relay'?)" in said


# --- in the order of things -------------------------------------------------------------------------------------


def test_applying_the_same_file_twice_changes_nothing(shop: Shop) -> None:
    shop.write("campaigns/winback.yaml", CAMPAIGN)
    assert "winback: new, now version 1" in shop.done("apply")
    facts = shop.facts()
    assert "winback: unchanged (version 1)" in shop.done("apply")
    assert shop.facts() == facts


def test_an_edited_file_changes_nothing_until_it_is_applied_again(shop: Shop) -> None:
    shop.write("campaigns/winback.yaml", CAMPAIGN)
    shop.done("apply")
    facts = shop.facts()
    shop.edit("campaigns/winback.yaml", ("2099-01-01 09:00", "2098-01-01 09:00"))
    (planned,) = shop.told("plan")
    assert planned["state"] == "changed"
    assert any("2098-01-01" in change for change in planned["changes"])
    assert shop.facts() == facts
    assert "winback: changed, now version 2" in shop.done("apply")
    assert shop.told("campaigns", "show", "winback")["spec"]["schedule"]["at"] == "2098-01-01 09:00"


def test_a_plan_warns_of_a_segment_without_members_and_writes_nothing(shop: Shop) -> None:
    shop.edit("segments/buyer.yaml", ("eq: buyer", "eq: Buyer"))
    shop.write("campaigns/winback.yaml", CAMPAIGN)
    facts = shop.facts()
    said = shop.done("plan")
    assert "warning: segment 'buyer' has no members" in said
    assert "would leave   nothing" in said
    assert shop.facts() == facts
