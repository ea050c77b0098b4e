"""Each kind of source: what is stored, what is rejected, what a second import changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, select, update

from kernel.errors import InputError
from kernel.settings import Workspace
from store.engine import writing
from store.tables import (
    accounts,
    consent_events,
    consents,
    contacts,
    events,
    opportunities,
    opportunity_stages,
    orders,
    products,
    spend,
    stock_levels,
)
from tests.importing import NOW, counts, give_file, give_sources, imported, rows

SOURCES = """\
sources:
  accounts:
    kind: accounts
    columns: {account: Nr, name: Company, parent: Head, country: Country, timezone: Zone, language: Lang}
    values: {country: {Deutschland: DE, "n/a": null, "": FR}}
    attributes: {tier: Tier, seats: {column: Seats, type: number}}
  stubs: {kind: accounts, columns: {account: Nr, parent: Head}, create: [accounts]}
  contacts:
    kind: contacts
    phone_region: GB
    columns: {contact: Id, account: Nr, email: Mail, phone: Phone, first_name: First, role: Role}
  consents:
    kind: consents
    columns: {contact: Id, status: Word, at: When, source: Where}
    constants: {channel: email}
    values: {status: {"yes": granted, "no": withdrawn}}
  orders:
    kind: orders
    decimal_comma: true
    date_format: DD.MM.YYYY HH:mm
    columns: {order: Order, account: Nr, contact: Id, ordered_at: Date, amount: Net, kind: Type, status: State,
              cancelled_at: Gone, currency: Cur}
    values: {kind: {Gutschrift: return}, state: {}}
  products: {kind: products, columns: {product: Sku, name: Name, price: Price, currency: Cur}}
  stock: {kind: stock, columns: {product: Sku, on_hand: Pieces}}
  deals: {kind: opportunities, currency: EUR,
          columns: {opportunity: Deal, account: Nr, stage: Stage, at: When, value: Worth}}
  spend: {kind: spend, columns: {channel: Where, starts_at: From, ends_at: Till, amount: Cost}}
  events: {kind: events, columns: {event: Id, name: What, contact: Who, at: When}, attributes: [Page]}
""".replace(", state: {}", "")
PEOPLE = "Id,Nr,Mail,Phone,First,Role\nP1,A1,Ann@ACME.example,020 7946 0018,Ann,buyer\nP2,A1,,,Bob,\n"


@pytest.fixture(autouse=True)
def _sources(workspace: Workspace) -> None:
    give_sources(workspace, SOURCES)


def seed(engine: Engine, workspace: Workspace) -> None:
    """Import an account with two contacts."""
    head = "Nr,Company,Head,Country,Zone,Lang,Tier,Seats\n"
    imported(
        engine, workspace, "accounts", give_file(workspace, "seed.csv", head + "A1,Acme,,GB,Europe/London,en,gold,12\n")
    )
    imported(engine, workspace, "contacts", give_file(workspace, "people.csv", PEOPLE))


def rejected(workspace: Workspace) -> str:
    return "".join(path.read_text() for path in sorted((workspace.root / ".carillon" / "rejects").glob("*.csv")))


HEAD = "Nr,Company,Head,Country,Zone,Lang,Tier,Seats\n"


def test_parents_may_come_in_any_order(engine: Engine, workspace: Workspace) -> None:
    text = HEAD + "A2,Child,A1,deutschland,,de,,\nA1,Top,,n/a,Europe/Paris,FR,gold,12\nA3,Grandchild,A2,,,,,3.5\n"
    file = give_file(workspace, "a.csv", text)
    assert counts(imported(engine, workspace, "accounts", file)) == {"rows": 3, "new": 3}
    above = accounts.alias("above")
    query = select(accounts.c.external_id, above.c.external_id, accounts.c.country, accounts.c.language)
    found = rows(engine, query.outerjoin_from(accounts, above, accounts.c.parent_id == above.c.id))
    assert sorted(found) == [("A1", None, None, "fr"), ("A2", "A1", "DE", "de"), ("A3", "A2", "FR", None)]
    attributes = dict(rows(engine, select(accounts.c.external_id, accounts.c.attributes)))
    assert attributes == {"A1": {"tier": "gold", "seats": 12}, "A2": {}, "A3": {"seats": 3.5}}
    assert counts(imported(engine, workspace, "accounts", file)) == {"rows": 3, "unchanged": 3}
    moved = give_file(workspace, "a.csv", text.replace("A3,Grandchild,A2", "A3,Grandchild,A1"))
    assert counts(imported(engine, workspace, "accounts", moved)) == {"rows": 3, "changed": 1, "unchanged": 2}


def test_circles_and_unknown_parents_are_rejected(engine: Engine, workspace: Workspace) -> None:
    text = HEAD + "A1,,A2,,,,,\nA2,,A1,,,,,\nA3,,A3,,,,,\nA4,,A9,,,,,\nA5,,A4,,,,,\nA6,,,,,,,\nA7,,A6,,,,,\n"
    result = imported(engine, workspace, "accounts", give_file(workspace, "a.csv", text))
    assert counts(result) == {"rows": 7, "new": 2, "rejected": 5}
    told = rejected(workspace)
    assert told.count("leads in a circle") == 3
    assert "unknown parent 'A9'" in told
    assert "unknown parent 'A4'" in told


def test_spend_below_nothing_is_rejected(engine: Engine, workspace: Workspace) -> None:
    text = "Where,From,Till,Cost\nads,2026-01-01,2026-02-01,100\nads,2026-02-01,2026-03-01,-5\n"
    result = imported(engine, workspace, "spend", give_file(workspace, "spend.csv", text))
    assert counts(result) == {"rows": 2, "new": 1, "rejected": 1}
    assert "amount is negative: spend is what was paid" in rejected(workspace)


def test_a_turned_around_pair_of_parents_is_no_circle(engine: Engine, workspace: Workspace) -> None:
    imported(engine, workspace, "accounts", give_file(workspace, "a.csv", HEAD + "A1,,,,,,,\nA2,,A1,,,,,\n"))
    turned = give_file(workspace, "a.csv", HEAD + "A1,,A2,,,,,\nA2,,,,,,,\n")
    assert counts(imported(engine, workspace, "accounts", turned)) == {"rows": 2, "changed": 2}


def test_unknown_parents_are_made_where_the_source_says_so(engine: Engine, workspace: Workspace) -> None:
    result = imported(engine, workspace, "stubs", give_file(workspace, "a.csv", "Nr,Head\nA1,A9\n"))
    assert counts(result) == {"rows": 1, "new": 1}
    assert result.tally.created_accounts == 1
    assert sorted(rows(engine, select(accounts.c.external_id))) == [("A1",), ("A9",)]


def test_of_two_rows_with_one_number_the_last_holds_also_on_the_second_import(
    engine: Engine, workspace: Workspace
) -> None:
    file = give_file(workspace, "a.csv", HEAD + "A1,First,,GB,,,,\nA1,Last,,GB,,,,\n")
    assert counts(imported(engine, workspace, "accounts", file)) == {"rows": 2, "new": 1, "superseded": 1}
    assert rows(engine, select(accounts.c.name)) == [("Last",)]
    assert counts(imported(engine, workspace, "accounts", file)) == {"rows": 2, "unchanged": 1, "superseded": 1}


@pytest.mark.parametrize("number", ["1e999", "inf", "-inf", "NaN", "10000000000000000"])
def test_a_row_whose_number_is_infinite_or_too_large_is_rejected_and_the_others_kept(
    engine: Engine, workspace: Workspace, number: str
) -> None:
    file = give_file(workspace, "a.csv", HEAD + f"A1,,,,,,,{number}\nA2,,,,,,,2500000000\n")
    assert counts(imported(engine, workspace, "accounts", file)) == {"rows": 2, "new": 1, "rejected": 1}
    assert f"seats: '{number}' is not a number" in rejected(workspace)
    assert rows(engine, select(accounts.c.external_id, accounts.c.attributes)) == [("A2", {"seats": 2_500_000_000})]
    product = '{{"Sku": "{}", "Name": "x", "Cur": "GBP", "Price": {}}}\n'
    text = (
        (product.format("S1", 1) + product.format("S2", number))
        .replace("-inf", "-Infinity")
        .replace(": inf", ": Infinity")
    )
    products_file = give_file(workspace, "p.jsonl", text)
    assert counts(imported(engine, workspace, "products", products_file)) == {"rows": 2, "new": 1, "rejected": 1}
    stock = give_file(workspace, "s.csv", f"Sku,Pieces\nS1,{number}\nS1,3\n")
    assert counts(imported(engine, workspace, "stock", stock)) == {"rows": 2, "new": 1, "rejected": 1}
    assert rows(engine, select(stock_levels.c.on_hand)) == [(3.0,)]


def test_another_sources_columns_and_attributes_are_left_alone(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    give_sources(
        workspace, "sources:\n  crm: {kind: accounts, columns: {account: Nr}, attributes: {owner: Rep, tier: Tier}}\n"
    )
    imported(engine, workspace, "crm", give_file(workspace, "crm.csv", "Nr,Rep,Tier\nA1,Joe,\n"))
    assert rows(engine, select(accounts.c.name, accounts.c.attributes)) == [("Acme", {"seats": 12, "owner": "Joe"})]


def test_contacts_get_one_spelling_of_their_addresses(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    query = select(contacts.c.external_id, contacts.c.email, contacts.c.phone, contacts.c.role).order_by(contacts.c.id)
    assert rows(engine, query) == [("P1", "Ann@acme.example", "+442079460018", "buyer"), ("P2", None, None, None)]
    again = imported(engine, workspace, "contacts", give_file(workspace, "people.csv", PEOPLE))
    assert counts(again) == {"rows": 2, "unchanged": 2}


def test_contacts_with_bad_addresses_or_unknown_accounts_are_rejected(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    text = PEOPLE + "P3,A1,ann(at)acme,,Ann,\nP4,A9,a@acme.example,,Ann,\nP5,A1,,12,Ann,\nP6,A1,x@acme.example,,Eve,\n"
    result = imported(engine, workspace, "contacts", give_file(workspace, "people.csv", text))
    assert counts(result) == {"rows": 6, "new": 1, "unchanged": 2, "rejected": 3}
    told = rejected(workspace)
    for reason in (
        "'ann(at)acme' is not an e-mail address",
        "unknown account 'A9'",
        "phone: '12' is not a phone number",
    ):
        assert reason in told


def test_the_latest_word_of_a_person_holds_and_all_are_kept(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    head = "Id,Word,When,Where\n"
    text = (
        head
        + "P1,no,2026-03-01,page\nP1,yes,2026-01-01,shop\nP2,yes,2026-02-01,shop\nP2,NO,2026-02-01,mail\n"
        + "P9,yes,2026-01-01,\n"
    )
    file = give_file(workspace, "c.csv", text)
    assert counts(imported(engine, workspace, "consents", file)) == {"rows": 5, "new": 4, "rejected": 1}
    query = select(contacts.c.external_id, consents.c.channel, consents.c.status, consents.c.at).join_from(
        contacts, consents
    )
    assert sorted(rows(engine, query)) == [
        ("P1", "email", "withdrawn", datetime(2026, 3, 1, tzinfo=UTC)),
        ("P2", "email", "withdrawn", datetime(2026, 2, 1, tzinfo=UTC)),
    ]
    assert len(rows(engine, select(consent_events.c.id))) == 4
    assert counts(imported(engine, workspace, "consents", file)) == {"rows": 5, "unchanged": 4, "rejected": 1}


def test_an_old_export_does_not_bring_back_a_consent_withdrawn_since(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    file = give_file(workspace, "c.csv", "Id,Word,When,Where\nP1,yes,2026-01-01,shop\n")
    imported(engine, workspace, "consents", file)
    with writing(engine) as connection:
        connection.execute(update(consents).values(status="withdrawn", at=NOW))
    imported(engine, workspace, "consents", file)
    later = give_file(workspace, "d.csv", "Id,Word,When,Where\nP1,yes,2026-01-02,shop\n")
    imported(engine, workspace, "consents", later)
    assert rows(engine, select(consents.c.status)) == [("withdrawn",)]


ORDERS = "Order,Nr,Id,Date,Net,Type,State,Gone,Cur\n" + "".join(
    f"{line}\n"
    for line in (
        'O1,A1,,24.12.2025 18:00,"1.234,56",,,,EUR',
        'O2,A1,,25.12.2025 18:00,"-5,00",,,,EUR',
        'O3,,P1,25.12.2025 18:00,"-5,00",gutschrift,,,EUR',
        'O4,,,25.12.2025 18:00,"7,005",,cancelled,,EUR',
        'O5,A1,,25.12.2025 18:00,"7,015",,Cancelled,26.12.2025 00:00,EUR',
        'O6,A1,,25.12.2025 18:00,"7,00",adjustment,placed,,JPY',
    )
)


def test_orders_of_one_row_each(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    file = give_file(workspace, "o.csv", ORDERS)
    result = imported(engine, workspace, "orders", file)
    assert counts(result) == {"rows": 6, "new": 6}
    assert result.tally.without_customer == 1
    assert (result.amount, result.currency) == (None, None)
    query = select(
        *(orders.c[name] for name in ("external_id", "kind", "net_minor", "gross_minor", "currency")),
        orders.c.account_id.is_not(None),
    )
    assert [tuple(row) for row in sorted(rows(engine, query))] == [
        ("O1", "order", 123456, 123456, "EUR", True),
        ("O2", "return", -500, 0, "EUR", True),
        ("O3", "return", -500, 0, "EUR", True),
        ("O4", "order", 700, 700, "EUR", False),
        ("O5", "order", 702, 702, "EUR", True),
        ("O6", "adjustment", 7, 0, "JPY", True),
    ]
    cancelled = dict(rows(engine, select(orders.c.external_id, orders.c.cancelled_at)))
    assert cancelled["O4"] == datetime(2025, 12, 25, 18, tzinfo=UTC)
    assert cancelled["O5"] == datetime(2025, 12, 26, tzinfo=UTC)
    assert cancelled["O1"] is None
    assert counts(imported(engine, workspace, "orders", file)) == {"rows": 6, "unchanged": 6}


def test_an_order_that_changed_is_changed_and_its_contact_gives_the_account(
    engine: Engine, workspace: Workspace
) -> None:
    seed(engine, workspace)
    imported(engine, workspace, "orders", give_file(workspace, "o.csv", ORDERS))
    result = imported(engine, workspace, "orders", give_file(workspace, "o.csv", ORDERS.replace("O4,,,", "O4,,P2,")))
    assert counts(result) == {"rows": 6, "changed": 1, "unchanged": 5}
    assert result.tally.without_customer == 0


def test_products_and_their_stock(engine: Engine, workspace: Workspace) -> None:
    text = "Sku,Name,Price,Cur\nS1,Lamp,12.345,GBP\nS2,,,\n"
    assert counts(imported(engine, workspace, "products", give_file(workspace, "p.csv", text))) == {"rows": 2, "new": 2}
    assert rows(engine, select(products.c.name, products.c.price_minor).order_by(products.c.id)) == [
        ("Lamp", 1234),
        ("", None),
    ]
    file = give_file(workspace, "s.csv", "Sku,Pieces\nS1,5\nS2,2.5\nS9,1\n")
    assert counts(imported(engine, workspace, "stock", file)) == {"rows": 3, "new": 2, "rejected": 1}
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    assert sorted(rows(engine, select(stock_levels.c.at, stock_levels.c.on_hand))) == [(midnight, 2.5), (midnight, 5.0)]
    counted = give_file(workspace, "s.csv", "Sku,Pieces\nS1,4\nS2,2.5\n")
    assert counts(imported(engine, workspace, "stock", counted)) == {"rows": 2, "changed": 1, "unchanged": 1}


def test_opportunities_keep_the_history_of_their_stages(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    text = (
        "Deal,Nr,Stage,When,Worth\nD1,A1,won,2026-03-01,900\nD1,A1,lead,2026-01-01,1000\nD1,A1,offer,2026-02-01,950\n"
    )
    file = give_file(workspace, "d.csv", text)
    assert counts(imported(engine, workspace, "deals", file)) == {"rows": 3, "new": 3}
    now = select(opportunities.c.stage, opportunities.c.stage_at, opportunities.c.value_minor, opportunities.c.currency)
    assert rows(engine, now) == [("won", datetime(2026, 3, 1, tzinfo=UTC), 90_000, "EUR")]
    assert len(rows(engine, select(opportunity_stages.c.id))) == 3
    assert counts(imported(engine, workspace, "deals", file)) == {"rows": 3, "unchanged": 3}
    older = give_file(workspace, "e.csv", "Deal,Nr,Stage,When,Worth\nD1,A1,contact,2025-12-01,1\n")
    assert counts(imported(engine, workspace, "deals", older)) == {"rows": 1, "new": 1}
    assert rows(engine, now)[0][:3] == ("won", datetime(2026, 3, 1, tzinfo=UTC), 90_000)


def test_events_take_the_account_of_their_contact(engine: Engine, workspace: Workspace) -> None:
    seed(engine, workspace)
    text = (
        '{"Id": "e1", "What": "demo_requested", "Who": "P1", "When": "2026-05-01T10:00:00Z", "Page": "/demo"}\n'
        '{"Id": "e2", "What": "demo_requested", "Who": "P9", "When": "2026-05-01T10:00:00Z", "Page": "/demo"}\n'
        "oops\n"
    )
    file = give_file(workspace, "e.jsonl", text)
    assert counts(imported(engine, workspace, "events", file)) == {"rows": 3, "new": 1, "rejected": 2}
    query = select(events.c.name, events.c.at, events.c.properties, events.c.account_id.is_not(None))
    assert rows(engine, query) == [("demo_requested", datetime(2026, 5, 1, 10, tzinfo=UTC), {"Page": "/demo"}, True)]
    assert counts(imported(engine, workspace, "events", file)) == {"rows": 3, "unchanged": 1, "rejected": 2}
    assert "is not a JSON object" in rejected(workspace)


def test_spend_has_one_amount_for_each_channel_and_start(engine: Engine, workspace: Workspace) -> None:
    january = "2026-01-01,2026-02-01"
    text = f"Where,From,Till,Cost\nads,{january},1000.50\nfair,{january},200\nads,2026-02-01,2026-01-01,1\n"
    file = give_file(workspace, "s.csv", text)
    assert counts(imported(engine, workspace, "spend", file)) == {"rows": 3, "new": 2, "rejected": 1}
    assert "ends_at is not after starts_at" in rejected(workspace)
    query = select(spend.c.channel, spend.c.starts_at, spend.c.amount_minor, spend.c.currency).order_by(spend.c.id)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert rows(engine, query) == [("ads", start, 100050, "GBP"), ("fair", start, 20000, "GBP")]
    file = give_file(workspace, "s.csv", text.replace("1000.50", "900"))
    again = counts(imported(engine, workspace, "spend", file))
    assert again == {"rows": 3, "changed": 1, "unchanged": 1, "rejected": 1}


def test_several_files_of_one_source_are_added_up(sqlite_engine: Engine, workspace: Workspace) -> None:
    give_sources(workspace, 'sources:\n  p: {kind: products, file: "p-*.csv", columns: {product: Sku}}\n')
    give_file(workspace, "p-1.csv", "Sku\nS1\nS2\n")
    give_file(workspace, "p-2.csv", "Sku\nS2\nS3\n")
    result = imported(sqlite_engine, workspace, "p")
    assert counts(result) == {"rows": 4, "new": 3, "unchanged": 1}
    assert [name.rpartition("/")[2] for name in result.files] == ["p-1.csv", "p-2.csv"]


def test_a_file_of_a_header_alone_is_no_rows(sqlite_engine: Engine, workspace: Workspace) -> None:
    for source, header in [
        ("accounts", HEAD),
        ("contacts", PEOPLE.splitlines()[0]),
        ("consents", "Id,Word,When,Where"),
        ("orders", ORDERS.splitlines()[0]),
        ("products", "Sku,Name,Price,Cur"),
        ("stock", "Sku,Pieces"),
        ("deals", "Deal,Nr,Stage,When,Worth"),
        ("events", "Id,What,Who,When,Page"),
        ("spend", "Where,From,Till,Cost"),
    ]:
        assert counts(imported(sqlite_engine, workspace, source, give_file(workspace, "x.csv", f"{header}\n"))) == {}


def test_a_constant_that_cannot_be_read_is_refused_where_it_stands(sqlite_engine: Engine, workspace: Workspace) -> None:
    give_sources(workspace, SOURCES.replace("{channel: email}", "{channel: mail}"))
    with pytest.raises(InputError, match=r"sources\.yaml:15:26: channel: 'mail' is none of email, sms"):
        imported(sqlite_engine, workspace, "consents", give_file(workspace, "c.csv", "Id,Word,When,Where\n"))
