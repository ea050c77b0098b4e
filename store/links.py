"""Registered link targets: a click leads to one of these rows and nowhere else."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, select

from kernel.ids import digest
from store.engine import reading, writing
from store.sql import insert_into
from store.tables import links

_MOST_KNOWN = 50_000


class LinkRegistry:
    """Gives each URL its lasting id; asks the database once per URL and process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, int] = {}

    def link_id(self, url: str) -> int:
        """Return the id of the URL, registering it where it is new."""
        known = self._known.get(url)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:  # Links made from contacts' data could grow without end.
                self._known.clear()
            known = self._known[url] = self._look_up(url) or self._register(url)
        return known

    def _look_up(self, url: str) -> int | None:
        with reading(self._engine) as connection:
            return connection.execute(select(links.c.id).where(links.c.digest == digest(url))).scalar_one_or_none()

    def _register(self, url: str) -> int:
        with writing(self._engine) as connection:
            connection.execute(
                insert_into(connection, links).values(digest=digest(url), url=url).on_conflict_do_nothing()
            )
            return int(connection.execute(select(links.c.id).where(links.c.digest == digest(url))).scalar_one())


def target(connection: Connection, link_id: int) -> str | None:
    """Return the registered URL, or None where there is no such link."""
    return connection.execute(select(links.c.url).where(links.c.id == link_id)).scalar_one_or_none()
