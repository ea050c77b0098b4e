from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError

from store.engine import open_database, reading, writing
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
