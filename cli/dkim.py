"""Commands about DKIM: make a key, and tell what belongs in the DNS."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from cli.shared import JsonOption, WorkspaceOption, console, print_json, reporting_errors
from kernel.dkim_keys import SELECTOR_RULE, Selector
from kernel.errors import ConfigError
from kernel.settings import Workspace, load_workspace
from templates.addresses import wire_address
from templates.dkim import DkimKey, keys_of
from templates.dkim_keys import load_key, new_key

dkim_app = typer.Typer(no_args_is_help=True, help="The keys that sign messages, and their DNS records.")
_TXT_STRING = 255
"""Octets of one string of a TXT record, RFC 1035 section 3.3.14; a longer record has several."""


class Algorithm(StrEnum):
    """What a key signs with."""

    RSA = "rsa"
    ED25519 = "ed25519"


def register(app: typer.Typer) -> None:
    """Add this group's commands to the application."""
    dkim_app.command("new")(new)
    dkim_app.command("records")(records)
    app.add_typer(dkim_app, name="dkim")


@reporting_errors
def new(
    selector: Annotated[str, typer.Argument(help="A name for the key within the domain, as 2026a.")],
    algorithm: Annotated[
        Algorithm, typer.Option(help="Old receivers know only rsa; sign with both.", show_default=True)
    ] = Algorithm.RSA,
    root: WorkspaceOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Make a key, readable by its owner only, and say what goes into the DNS and into carillon.yaml.

    Example: carillon dkim new 2026a --algorithm ed25519
    """
    try:
        TypeAdapter(Selector).validate_python(selector)
    except ValidationError as error:
        raise ConfigError(f"{selector!r} is no selector: {SELECTOR_RULE}") from error
    workspace = load_workspace(root)
    name, sender = next(iter(workspace.settings.senders.items()))
    pem = new_key("rsa" if algorithm is Algorithm.RSA else "ed25519")
    key = load_key(wire_address(sender.email).domain, selector, pem)
    path = _kept(workspace, selector, pem)
    if as_json:
        print_json({**_as_json(name, key), "key_file": str(path)})
        return
    console.print(f"made {path}\n\nin the DNS, before a message is signed:", highlight=False, soft_wrap=True)
    _print_record(key)
    console.print("\nin carillon.yaml, of the sender:", highlight=False)
    shown = f"    dkim:\n      - {{selector: {selector}, key_file: {path}}}"
    console.print(shown, markup=False, highlight=False, soft_wrap=True)


def _kept(workspace: Workspace, selector: str, pem: str) -> Path:
    folder = workspace.data_dir / "dkim"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{Path(selector).name}.pem"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"there is a key {path} already; name the new one otherwise") from error
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(pem)
    return path.relative_to(workspace.root)


@reporting_errors
def records(root: WorkspaceOption = Path(), as_json: JsonOption = False) -> None:
    """Print the TXT record of every key the senders sign with.

    Example: carillon dkim records --json
    """
    workspace = load_workspace(root)
    found = {
        name: keys for name, sender in workspace.settings.senders.items() if (keys := keys_of(sender, workspace.root))
    }
    if as_json:
        print_json([_as_json(sender, key) for sender, keys in found.items() for key in keys])
        return
    if not found:
        console.print("no sender signs; make a key with `carillon dkim new SELECTOR`")
    for sender, keys in found.items():
        for key in keys:
            console.print(f"sender {sender}, {key.algorithm}, {key.bits} bits:", highlight=False)
            _print_record(key)


def _as_json(sender: str, key: DkimKey) -> dict[str, Any]:
    return {
        "sender": sender,
        "algorithm": key.algorithm,
        "bits": key.bits,
        "name": key.name,
        "type": "TXT",
        "value": key.record,
    }


def _print_record(key: DkimKey) -> None:
    strings = [key.record[start : start + _TXT_STRING] for start in range(0, len(key.record), _TXT_STRING)]
    value = " ".join(f'"{string}"' for string in strings)
    console.print(f"  {key.name}. TXT {value}", markup=False, highlight=False, soft_wrap=True)
