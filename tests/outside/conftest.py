"""What is judged: e-mails as a real server received them from the real delivery core."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outside.sending import Mail, mails_of_examples, mails_of_odd_people

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder belongs to `make test-outside` and not to `make test`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.outside)


@pytest.fixture(scope="session")
def odd_mails(tmp_path_factory: pytest.TempPathFactory) -> list[Mail]:
    """E-mails to people whose names try a composer."""
    return mails_of_odd_people(tmp_path_factory.mktemp("odd"))


@pytest.fixture(scope="session")
def example_mails(tmp_path_factory: pytest.TempPathFactory) -> list[Mail]:
    """A few e-mails of every campaign of the example workspace."""
    return mails_of_examples(tmp_path_factory.mktemp("examples") / "shop")


@pytest.fixture(scope="session")
def mails(odd_mails: list[Mail], example_mails: list[Mail]) -> list[Mail]:
    return [*odd_mails, *example_mails]
