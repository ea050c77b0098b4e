"""The benchmarks run rarely: at least what they name is there."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks
from benchmarks.peers import VARIABLES


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__)])
def test_a_benchmark_can_be_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "memory://")
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.__doc__, "it says what it measures"
