"""Lists for advertising platforms: normalised and hashed as published, with consent, and never half written."""

from __future__ import annotations

import csv
import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from kernel.errors import ConfigError
from kernel.settings import Workspace
from segments import exporting
from segments.definitions import load_segments
from segments.export_files import removals_path, write_csv_files
from segments.export_layouts.layout import Person, plain_email, plain_phone, sha256_hex
from segments.exporting import LAYOUTS, ConsentPolicy, Export, export_segment
from store.engine import reading, writing
from store.tables import accounts, consents, contacts, exported_addresses, suppressions

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GOOGLE, META, GENERIC = "google_customer_match", "meta", "generic"
FIRMS = "subject: account\nwhere: {everyone: true}\n"
PEOPLE = "subject: contact\nwhere: {everyone: true}\n"


def person(engine: Engine, number: int, *, email: str | None = None, phone: str | None = None, **other: Any) -> None:
    """Store a contact who has agreed to both channels, of account `account` or one of the same number."""
    words = {"email": "granted", "sms": "granted"} | other.pop("words", {})
    account = other.pop("account", number)
    with writing(engine) as connection:
        known = connection.execute(select(accounts.c.id).where(accounts.c.id == account)).scalar_one_or_none()
        if known is None:
            firm = {"id": account, "external_id": f"A{account}", "country": other.pop("country", "GB")}
            connection.execute(accounts.insert().values(firm))
        values = {"id": number, "external_id": f"C{number}", "account_id": account, "email": email, "phone": phone}
        connection.execute(contacts.insert().values(values | other))
        for channel, word in words.items():
            if word:
                one = {"contact_id": number, "channel": channel, "status": word, "at": NOW - DAY}
                connection.execute(consents.insert().values(one))


def suppress(engine: Engine, channel: str, address: str) -> None:
    with writing(engine) as connection:
        values = {"channel": channel, "address": address, "reason": "unsubscribe", "at": NOW}
        connection.execute(suppressions.insert().values(values))


def export(
    engine: Engine, workspace: Workspace, *, name: str = "people", now: datetime = NOW, **options: Any
) -> Export:
    for file, text in (("firms", FIRMS), ("people", PEOPLE)):
        (workspace.root / "segments" / f"{file}.yaml").write_text(text, encoding="utf-8")
    given: dict[str, Any] = {"layout": GENERIC, "out": workspace.root / "ads.csv"} | options
    return export_segment(engine, load_segments(workspace), name, now=now, currency="GBP", **given)


def lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# --- normalisation -------------------------------------------------------------------------------------------


def test_the_digest_is_the_published_sha256() -> None:
    # The test vector of FIPS 180-4, and the sample address Meta's documentation hashes.
    assert sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_hex("john_smith@gmail.com") == "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"
    assert sha256_hex("") == ""


@pytest.mark.parametrize(
    ("layout", "written", "hashed"),
    [
        (GOOGLE, " Jane.Doe+Shopping@googlemail.com ", "janedoe@googlemail.com"),
        (GOOGLE, "cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
        (GOOGLE, "user.name+NYC@Example.com", "user.name+nyc@example.com"),
        (META, "Jane.Doe+Shopping@gmail.com", "jane.doe+shopping@gmail.com"),
        (GENERIC, "ÉMILE@Exemple.fr", "émile@exemple.fr"),
        (GENERIC, "e\u0301mile@exemple.fr", "émile@exemple.fr"),
    ],
)
def test_an_email_is_normalised_as_its_platform_says(layout: str, written: str, hashed: str) -> None:
    plain = plain_email(written)
    assert plain is not None
    assert LAYOUTS[layout].email(plain) == hashed


@pytest.mark.parametrize("written", ["", "nobody", "a@b", "a@@b.c", "a@b.c@d.e", "@b.c", "a\x00@b.cd"])
def test_what_is_no_email_is_not_hashed(written: str) -> None:
    assert plain_email(written) is None


@pytest.mark.parametrize(
    ("layout", "hashed"), [(GOOGLE, "+447900000001"), (META, "447900000001"), (GENERIC, "+447900000001")]
)
def test_a_phone_is_e164_and_meta_takes_the_plus_away(layout: str, hashed: str) -> None:
    assert LAYOUTS[layout].phone("+447900000001") == hashed


@pytest.mark.parametrize("written", ["", "07900000001", "+07900000001", "+44", "+4479000000012345", "+44 abc"])
def test_what_is_no_e164_is_not_hashed(written: str) -> None:
    assert plain_phone(written) is None
    assert plain_phone("+44 7900 000001") == "+447900000001"


def test_google_hashes_names_and_leaves_country_and_zip_readable() -> None:
    zoe = Person(first_name=" Zoë ", last_name="van  der Berg", country="sg", postal_code="wc2h 8lg")
    assert LAYOUTS[GOOGLE].rest(zoe) == (sha("zoë"), sha("van der berg"), "SG", "WC2H 8LG")
    assert LAYOUTS[GOOGLE].columns == ("Email", "Phone", "First Name", "Last Name", "Country", "Zip")


@pytest.mark.parametrize(
    ("code", "told"),
    [("94016", "94016"), ("94303-5300", "94303-5300"), ("94303 5300", "94303-5300"), ("94303-53", "94303")],
)
def test_a_zip_of_the_united_states_has_five_or_nine_digits(code: str, told: str) -> None:
    someone = Person(first_name="A", last_name="B", country="US", postal_code=code)
    assert LAYOUTS[GOOGLE].rest(someone)[3] == told
    assert LAYOUTS[META].rest(someone)[2] == sha(told[:5])


@pytest.mark.parametrize("lacking", ["first_name", "last_name", "country", "postal_code"])
def test_google_gets_a_whole_mailing_address_or_none(lacking: str) -> None:
    whole = {"first_name": "Ann", "last_name": "Lee", "country": "GB", "postal_code": "LS1 1AA"}
    assert all(LAYOUTS[GOOGLE].rest(Person(**whole)))
    assert LAYOUTS[GOOGLE].rest(Person(**whole | {lacking: ""})) == ("", "", "", "")


def test_meta_hashes_everything_without_punctuation_and_white_space() -> None:
    mary = Person(first_name="Mary-Ann", last_name="O'Brien Jr.", country="GB", postal_code="LS1 1AA")
    assert LAYOUTS[META].rest(mary) == (sha("maryann"), sha("obrienjr"), sha("ls11aa"), sha("gb"))
    assert LAYOUTS[META].columns == ("email", "phone", "fn", "ln", "zip", "country")
    assert LAYOUTS[META].rest(Person(last_name="정")) == ("", sha("정"), "", "")


@pytest.mark.parametrize("hostile", ['=HYPERLINK("http://x")', "+1", "LS1\n1AA,evil", "x" * 40, "<script>"])
def test_a_postal_code_that_is_none_is_left_out(hostile: str) -> None:
    someone = Person(first_name="A", last_name="B", country="GB", postal_code=hostile)
    assert LAYOUTS[GOOGLE].rest(someone) == ("", "", "", "")


# --- the file ------------------------------------------------------------------------------------------------


def test_the_file_holds_digests_in_an_order_of_their_own_and_no_address(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="Ann@Acme.example", phone="+447900000001", first_name="Ann", last_name="Lee",
           attributes={"postal_code": "LS1 1AA"})  # fmt: skip
    person(engine, 2, email="bob@acme.example", account=1)
    done = export(engine, workspace, layout=GOOGLE)
    header, *rows = lines(done.file)
    assert header == ["Email", "Phone", "First Name", "Last Name", "Country", "Zip"]
    ann = [sha("ann@acme.example"), sha("+447900000001"), sha("ann"), sha("lee"), "GB", "LS1 1AA"]
    assert rows == sorted([ann, [sha("bob@acme.example"), "", "", "", "", ""]])
    text = done.file.read_text(encoding="utf-8").lower()
    assert not [raw for raw in ("@", "acme", "+44", "7900", "ann", "bob") if raw in text]
    assert (done.written, done.tally.exported, done.added, done.removals) == (True, 2, 3, 0)
    assert lines(done.removals_file) == [header]


def test_a_segment_of_accounts_exports_its_contacts(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="ann@acme.example")
    person(engine, 2, email="bob@acme.example", account=1)
    person(engine, 3)
    with writing(engine) as connection:
        connection.execute(accounts.insert().values(id=9, external_id="A9"))
    tally = export(engine, workspace, name="firms").tally
    assert (tally.subjects, tally.contacts, tally.exported) == (3, 3, 2)
    assert (tally.left_out, tally.childless, tally.unreachable) == ({"no_address": 1}, 1, 1)


def test_an_address_goes_out_only_with_the_latest_word_of_its_own_channel(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="granted@a.example", phone="+447900000001", words={"sms": "withdrawn"})
    person(engine, 2, email="withdrawn@a.example", words={"email": "withdrawn"})
    person(engine, 3, email="silent@a.example", words={"email": None})
    person(engine, 4, email="Suppressed@A.example")
    person(engine, 5, email="plain@a.example", phone="+447900000005")
    suppress(engine, "email", "suppressed@a.example")
    suppress(engine, "sms", "+447900000005")
    done = export(engine, workspace)
    assert lines(done.file)[1:] == sorted([[sha("granted@a.example"), ""], [sha("plain@a.example"), ""]])
    assert done.tally.left_out == {"no_consent": 2, "suppressed": 1}
    assert done.tally.addresses == {
        "email": {"exported": 2, "no_consent": 2, "suppressed": 1},
        "phone": {"no_address": 3, "no_consent": 1, "suppressed": 1},
    }


def test_strict_consent_leaves_out_whoever_took_a_word_back_anywhere(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="a@a.example", phone="+447900000001", words={"sms": "withdrawn"})
    person(engine, 2, email="b@a.example", phone="+447900000002")
    person(engine, 3, email="c@a.example", words={"sms": None})
    suppress(engine, "sms", "+447900000002")
    done = export(engine, workspace, consent=ConsentPolicy.STRICT)
    assert lines(done.file)[1:] == [[sha("c@a.example"), ""]]
    assert done.tally.left_out == {"no_consent": 1, "suppressed": 1}


def test_one_address_stands_in_the_file_once(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="j.doe@gmail.com")
    person(engine, 2, email="jdoe+work@gmail.com")
    person(engine, 3, email="JDOE@gmail.com", phone="+447900000003")
    person(engine, 4, email="+tag@gmail.com")
    done = export(engine, workspace, layout=GOOGLE)
    assert [row[:2] for row in lines(done.file)[1:]] == [
        [sha("jdoe@gmail.com"), ""],
        [sha("jdoe@gmail.com"), sha("+447900000003")],
    ]
    assert done.tally.left_out == {"duplicate_address": 1, "invalid_address": 1}


def test_everybody_is_accounted_for(engine: Engine, workspace: Workspace) -> None:
    for number in range(1, 41):
        words = {"email": ("granted", "withdrawn", None)[number % 3], "sms": ("granted", None)[number % 2]}
        email = None if number % 7 == 0 else "no address" if number % 11 == 0 else f"p{number % 30}@a.example"
        person(engine, number, email=email, phone=f"+4479000000{number:02d}" if number % 4 else None, words=words)
    tally = export(engine, workspace, name="firms").tally
    assert tally.contacts == tally.exported + sum(tally.left_out.values()) == 40
    assert {sum(numbers.values()) for numbers in tally.addresses.values()} == {40}
    assert set(tally.left_out) >= {"duplicate_address", "no_consent", "no_address"}


def test_the_postal_code_is_the_contacts_own_or_else_the_accounts(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="a@a.example", first_name="A", last_name="B", attributes={"zip": 94016})
    person(engine, 2, email="b@a.example", first_name="A", last_name="B", account=1, attributes={"zip": True})
    with writing(engine) as connection:
        connection.execute(update(accounts).values(attributes={"postcode": "E1 6AN"}))
    rows = {row[0]: row[5] for row in lines(export(engine, workspace, layout=GOOGLE).file)[1:]}
    assert rows == {sha("a@a.example"): "94016", sha("b@a.example"): "E1 6AN"}


def test_more_people_than_one_chunk_are_all_exported(
    sqlite_engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_CHUNK", 7)
    monkeypatch.setattr(exporting, "_ROWS_PER_COMMIT", 5)
    for number in range(1, 31):
        person(sqlite_engine, number, email=f"p{number}@a.example")
    suppress(sqlite_engine, "email", "p29@a.example")
    done = export(sqlite_engine, workspace)
    assert {row[0] for row in lines(done.file)[1:]} == {sha(f"p{n}@a.example") for n in range(1, 31) if n != 29}
    assert export(sqlite_engine, workspace).added == 0


# --- again, and again ----------------------------------------------------------------------------------------


def test_who_is_gone_is_listed_for_removal_until_the_platform_has_taken_it(
    engine: Engine, workspace: Workspace
) -> None:
    person(engine, 1, email="ann@a.example", phone="+447900000001")
    person(engine, 2, email="bob@a.example")
    export(engine, workspace, layout=META)
    suppress(engine, "email", "bob@a.example")
    with writing(engine) as connection:
        connection.execute(update(contacts).where(contacts.c.id == 1).values(phone="+447900000009"))
    done = export(engine, workspace, layout=META, now=NOW + DAY)
    gone = [[sha("bob@a.example"), "", "", "", "", ""], ["", sha("447900000001"), "", "", "", ""]]
    assert lines(done.removals_file) == [list(LAYOUTS[META].columns), *gone]
    assert (done.removals, done.added) == (2, 1)
    again = export(engine, workspace, layout=META, now=NOW + 2 * DAY)
    assert (again.removals, again.added) == (2, 0)
    after = export(engine, workspace, layout=META, now=NOW + 3 * DAY, removals_done=True)
    assert (after.removals, lines(after.removals_file)[1:]) == (0, [])
    assert export(engine, workspace, layout=META, now=NOW + 4 * DAY).removals == 0


def test_an_export_repeated_gives_the_same_bytes(engine: Engine, workspace: Workspace) -> None:
    for number in range(1, 6):
        person(engine, number, email=f"p{number}@a.example")
    first = export(engine, workspace)
    suppress(engine, "email", "p3@a.example")
    second = export(engine, workspace)
    seen = [path.read_bytes() for path in (second.file, second.removals_file)]
    third = export(engine, workspace, now=NOW + DAY)
    assert [path.read_bytes() for path in (third.file, third.removals_file)] == seen
    assert (first.added, second.added, third.added, third.removals) == (5, 0, 0, 1)


def test_who_comes_back_is_not_removed(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="ann@a.example")
    export(engine, workspace)
    suppress(engine, "email", "ann@a.example")
    assert export(engine, workspace).removals == 1
    with writing(engine) as connection:
        connection.execute(suppressions.delete())
    done = export(engine, workspace, removals_done=True)
    assert (done.removals, done.tally.exported) == (0, 1)
    suppress(engine, "email", "ann@a.example")
    assert export(engine, workspace).removals == 1


def test_layouts_and_segments_are_remembered_apart(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="ann@a.example")
    export(engine, workspace)
    export(engine, workspace, name="firms")
    suppress(engine, "email", "ann@a.example")
    assert export(engine, workspace, layout=META).removals == 0
    assert export(engine, workspace, name="firms").removals == 1


def test_a_dry_run_counts_and_writes_nothing(engine: Engine, workspace: Workspace) -> None:
    person(engine, 1, email="ann@a.example")
    done = export(engine, workspace, dry_run=True)
    assert (done.written, done.tally.exported, done.added) == (False, 1, 1)
    assert not done.file.exists()
    assert not done.removals_file.exists()
    with reading(engine) as connection:
        assert connection.execute(select(exported_addresses)).all() == []


def test_nothing_is_remembered_of_an_export_that_could_not_be_written(
    engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(engine, 1, email="ann@a.example")
    export(engine, workspace)
    before = {path.name: path.read_bytes() for path in workspace.root.glob("*.csv")}
    person(engine, 2, email="bob@a.example")

    def fail(_descriptor: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="disk is full"):
            export(engine, workspace)
    assert {path.name: path.read_bytes() for path in workspace.root.glob("*.csv")} == before
    assert not list(workspace.root.glob(".ads.csv*"))
    with reading(engine) as connection:
        assert connection.execute(select(exported_addresses.c.digest)).scalars().all() == [sha("ann@a.example")]
    assert export(engine, workspace).added == 1


def test_the_database_learns_of_an_export_after_the_file_is_in_place(
    engine: Engine, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(engine, 1, email="ann@a.example")

    def fail(*_all: Any, **_named: Any) -> None:
        assert len(lines(workspace.root / "ads.csv")) == 2
        raise ConfigError("killed here")

    with monkeypatch.context() as broken:
        broken.setattr(exporting, "_record", fail)
        with pytest.raises(ConfigError, match="killed here"):
            export(engine, workspace)
    assert export(engine, workspace).added == 1


def test_only_its_owner_reads_the_file(tmp_path: Path) -> None:
    write_csv_files({tmp_path / "a.csv": (("x",), [("1",)])})
    assert (tmp_path / "a.csv").stat().st_mode & 0o077 == 0
    assert (tmp_path / "a.csv").read_bytes() == b"x\n1\n"
    assert removals_path(tmp_path / "a.csv").name == "a.csv.removals.csv"


def test_what_cannot_be_done_is_said_with_its_remedy(engine: Engine, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="there are google_customer_match, meta, generic"):
        export(engine, workspace, layout="tiktok")
    with pytest.raises(ConfigError, match="make it first"):
        export(engine, workspace, out=workspace.root / "nowhere" / "ads.csv")
    with pytest.raises(ConfigError, match="not known which removals are done"):
        export(engine, workspace, removals_done=True)


def test_only_an_earlier_export_is_written_over(engine: Engine, workspace: Workspace) -> None:
    root = workspace.root
    before = (root / "carillon.yaml").read_bytes()
    with pytest.raises(ConfigError, match="is a folder: name the file"):
        export(engine, workspace, out=root)
    with pytest.raises(ConfigError, match="is a folder: name the file"):
        export(engine, workspace, out=Path())
    for name in (
        "carillon.yaml",
        "sources.yaml",
        "segments/people.csv",
        "templates/a.csv",
        "campaigns/../segments/a.csv",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="own files: write the export elsewhere"):
            export(engine, workspace, out=root / name, root=root)
    for mine in (root / "mine.csv", removals_path(root / "ads.csv")):
        mine.write_text("email_sha256,phone_sha256,note\nx,y,z\n", encoding="utf-8")
        with pytest.raises(ConfigError, match="is no earlier export: write elsewhere, or delete it first"):
            export(engine, workspace, out=root / mine.name.removesuffix(".removals.csv"), dry_run=True)
    with pytest.raises(ConfigError, match="is no earlier export"):
        export(engine, workspace, out=root / "carillon.yaml")
    assert (root / "carillon.yaml").read_bytes() == before
    assert (root / "mine.csv").read_text(encoding="utf-8").endswith("x,y,z\n")
    removals_path(root / "ads.csv").unlink()
    for layout in (GENERIC, GOOGLE, META):
        assert export(engine, workspace, layout=layout, root=root).written


def test_an_empty_segment_gives_an_empty_list(engine: Engine, workspace: Workspace) -> None:
    done = export(engine, workspace)
    assert lines(done.file) == [["email_sha256", "phone_sha256"]]
    assert (done.tally.subjects, done.tally.contacts, done.tally.exported, done.tally.left_out) == (0, 0, 0, {})
