"""Programs nobody here wrote: where they are, and what their absence means.

On a laptop a test whose program is absent skips and says how to get it; in CI (`CI=true`) it fails, so that no judge
is ever left out unseen.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

NODE = Path(__file__).parent / "node"
_SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Mail servers live here, and not every user's path says so."""


def program(name: str, *, debian: str) -> str:
    """Return the path of a program, or skip (in CI: fail) with the Debian package that has it."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SYSTEM_FOLDERS))
    return found or absent(f"{name} is not installed; on Debian and Ubuntu: apt-get install {debian}")


def node_package(name: str) -> Path:
    """Return the folder of an npm package, or skip (in CI: fail) with the way to get it."""
    program("node", debian="nodejs npm")
    folder = NODE / "node_modules" / name
    if folder.is_dir():
        return folder
    return absent(f"npm package {name} is not installed; run `make test-outside`, which needs npm")


def absent(words: str) -> NoReturn:
    """Skip the test that needs what is absent; in CI fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(words)
    pytest.skip(words)


def node(script: str, *arguments: str | Path, needs: str) -> Any:
    """Run a script of the folder `node` and return the JSON it prints."""
    node_package(needs)
    done = subprocess.run(
        [program("node", debian="nodejs npm"), str(NODE / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
