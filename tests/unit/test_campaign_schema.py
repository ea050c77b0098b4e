"""The schema editors use and the table people read name the same keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from campaigns.schema import CampaignSpec, json_schema
from kernel.settings import Settings
from kernel.vocabulary import SkipReason

DOCS = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text(encoding="utf-8")


def keys(schema: dict[str, Any], root: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of a campaign file as a dotted path, with its schema."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for part in schema.get("anyOf", []):
        yield from keys(part, root, prefix)
    if "items" in schema:
        yield from keys(schema["items"], root, f"{prefix.rstrip('.')}[].")
    for name, inner in schema.get("properties", {}).items():
        # A description equal to that of the thing referred to stands there only.
        referred = root["$defs"][inner["$ref"].rsplit("/", 1)[1]] if "$ref" in inner else {}
        yield f"{prefix}{name}", {**referred, **inner}
        yield from keys(inner, root, f"{prefix}{name}.")


def all_keys() -> dict[str, dict[str, Any]]:
    return dict(keys(json_schema(), json_schema()))


def test_every_key_of_a_campaign_file_is_in_the_docs() -> None:
    documented = set(re.findall(r"^\| `([^`]+)` \|", DOCS, flags=re.MULTILINE))
    assert set(all_keys()) - documented == set()


def test_the_docs_name_no_key_that_does_not_exist() -> None:
    table = DOCS.partition("<!-- keys -->")[2].partition("<!-- end -->")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)) - set(all_keys()) == set()


def test_every_reason_to_skip_is_in_the_docs() -> None:
    assert [reason for reason in SkipReason if f"| `{reason}` |" not in DOCS] == []


def test_every_key_is_described_for_editors() -> None:
    shared = ("limits.", "window.")
    bare = [path for path, schema in all_keys().items() if "description" not in schema]
    assert [path for path in bare if not any(word in path for word in shared)] == []


def test_the_schema_refuses_unknown_keys_everywhere() -> None:
    schema = json_schema()
    objects = [schema, *(part for part in schema["$defs"].values() if part.get("type") == "object")]
    assert all(part["additionalProperties"] is False for part in objects)


def test_a_campaign_that_changes_one_limit_keeps_the_others_of_the_workspace() -> None:
    brand = {"name": "Acme", "postal_address": "1 Dock Road"}
    limits = {"caps": [{"channel": "email", "messages": 2, "within": "7d"}], "max_age": "1d"}
    settings = Settings.model_validate(
        {"brand": brand, "senders": {"main": {"name": "Acme", "email": "hello@acme.example"}}, "limits": limits}
    )
    spec = CampaignSpec.model_validate(
        {
            "audience": {"segment": "a"},
            "schedule": {"at": "2026-12-01 09:00"},
            "steps": [{"email": "hello"}],
            "limits": {"max_age": "5d"},
        }
    ).resolved(settings)
    assert spec.limits is not None
    assert (spec.limits.max_age, spec.limits.caps) == ("5d", settings.limits.caps)
    assert (spec.steps[0].sender, spec.schedule.zone) == ("main", "UTC")


def test_a_spec_survives_being_kept_as_json() -> None:
    spec = CampaignSpec.model_validate(
        {
            "audience": {"segment": "a", "exclude": ["b"], "holdout": "10%"},
            "schedule": {"cron": "0 9 * * mon", "from": "2026-01-01"},
            "steps": [{"email": "hello"}, {"sms": "nudge", "wait": "3d"}],
            "goal": {"order": {}, "within": "14d"},
        }
    )
    kept = spec.model_dump_json(by_alias=True, exclude_none=True)
    assert CampaignSpec.model_validate_json(kept) == spec
