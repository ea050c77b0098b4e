from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import OperationalError

from store.engine import open_database, reading, writing
from store.ingest.bulk import among, ids_of, insert_rows, update_rows
from store.schema import installation
from store.tables import accounts
from store.types import database_now


def test_a_written_row_is_read_back(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(accounts.insert().values(external_id="A1", name="Acme"))
    with reading(engine) as connection:
        assert connection.execute(select(accounts.c.name)).scalar_one() == "Acme"
        assert len(installation(connection)) == 12
        assert connection.execute(select(database_now())).scalar_one() > 1_700_000_000_000


@pytest.mark.parametrize(
    "odd", ["", "NULL", "null", '"', "\\", '\\"', "{a,b}", ",", " ", "a\nb\t", "'", "%s ?1 :x", "é漢😀"]
)
def test_texts_of_every_kind_are_found_and_changed_among_many(engine: Engine, odd: str) -> None:
    with writing(engine) as connection:
        insert_rows(connection, accounts, ("external_id", "name"), [(f"A{odd}", "one"), ("B", "two"), ("C", "three")])
        found = ids_of(connection, accounts, [f"A{odd}", "B", "nobody"])
        assert set(found) == {f"A{odd}", "B"}
        rows = [(found[f"A{odd}"], odd, None), (found["B"], f"{odd}{odd}", odd)]
        update_rows(connection, accounts, ("name", "country"), rows, same={"language": "de"}, only={"timezone": None})
        assert connection.execute(select(accounts.c.language).distinct()).scalars().all() == [None], (
            "NULL equals nothing"
        )
        update_rows(connection, accounts, ("name", "country"), rows, same={"language": "de"})
        query = select(accounts.c.name, accounts.c.country, accounts.c.language).order_by(accounts.c.id)
        assert [tuple(row) for row in connection.execute(query)] == [
            (odd, None, "de"),
            (f"{odd}{odd}", odd, "de"),
            ("three", None, None),
        ]


def test_nothing_is_among_nothing(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(accounts.insert().values(external_id="A1"))
        for column in (accounts.c.id, accounts.c.external_id):
            assert connection.execute(select(accounts.c.id).where(among(connection, column, []))).all() == []
            assert connection.execute(select(func.count()).where(~among(connection, column, []))).scalar_one() == 1


def test_a_value_is_among_thousands_as_among_few(engine: Engine) -> None:
    """More than so many go another way on PostgreSQL, which would compare each row with one after the other."""
    with writing(engine) as connection:
        connection.execute(accounts.insert(), [{"external_id": f"A{n}"} for n in range(6)])
        ids = connection.execute(select(accounts.c.id).order_by(accounts.c.id)).scalars().all()
        many_ids = [*ids[:3], *range(10_000_000, 10_003_000)]
        many_names = ["A0", "A1", "A2", *(f'x{n} "\\ü' for n in range(3_000))]
        for column, values in ((accounts.c.id, many_ids), (accounts.c.external_id, many_names)):
            found = connection.execute(select(accounts.c.external_id).where(among(connection, column, values)))
            assert sorted(found.scalars()) == ["A0", "A1", "A2"]
            others = connection.execute(select(accounts.c.external_id).where(~among(connection, column, values)))
            assert sorted(others.scalars()) == ["A3", "A4", "A5"]
        if engine.dialect.name == "postgresql":
            told = select(accounts.c.id).where(among(connection, accounts.c.name, many_names))
            compiled = told.compile(connection, compile_kwargs={"render_postcompile": True})
            assert "unnest" in str(compiled)


def test_whoever_cannot_get_the_write_lock_hears_so_in_words_callers_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.engine._LOCK_PATIENCE_S", 0)
    first, second = (open_database(f"sqlite:///{tmp_path / 'c.db'}") for _ in range(2))
    with writing(first), pytest.raises(OperationalError, match="database is locked"), writing(second):
        pass
    with writing(second) as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar_one() == 60_000, "others wait as before"
    first.dispose()
    second.dispose()
