"""The newcomer's workspace, made once."""

from __future__ import annotations

import pytest

from tests.acceptance.newcomer import Shop, new_shop


@pytest.fixture(scope="session")
def prepared_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A workspace with people, consents and orders; tests copy it and leave it alone."""
    return new_shop(tmp_path_factory.mktemp("newcomer") / "shop")
