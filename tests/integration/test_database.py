from sqlalchemy import Engine, select

from store.engine import reading, writing
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
