"""carillon.yaml: every wrong value has its line, secrets stay secret, the environment has the last word."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from kernel.errors import ConfigError, InputError
from kernel.fields import minutes_of
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Channel
from tests.conftest import WORKSPACE_YAML

BASE = """\
brand: {name: Acme, postal_address: "1 Dock Road, Leeds"}
senders:
  default: {name: Acme, email: hello@acme.example}
"""
HTTP = "gateways:\n  sms: {type: http, url: 'http://h/', json_body: "


def load(tmp_path: Path, text: str, **environment: str) -> Workspace:
    (tmp_path / "carillon.yaml").write_text(text, encoding="utf-8")
    return load_workspace(tmp_path, environment)


def problems_of(tmp_path: Path, text: str, **environment: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, **environment)
    return [str(problem) for problem in caught.value.problems]


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    workspace = load(tmp_path, WORKSPACE_YAML)
    assert workspace.settings.currency == "GBP"
    assert list(workspace.settings.gateways_for(Channel.EMAIL)) == ["relay"]
    assert workspace.settings.gateways_for(Channel.SMS) == {}
    assert workspace.database_url == f"sqlite:///{tmp_path / '.carillon' / 'carillon.db'}"
    assert workspace.embedded_broker


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("currency: Euro", "carillon.yaml:4:11: currency: 'Euro' is not a currency code; write three capitals, as EUR"),
        ("timezone: Europe/Berln", "carillon.yaml:4:11: timezone: 'Europe/Berln' is not a time"),
        ("time_zone: UTC", "carillon.yaml:4:1: unknown key 'time_zone' (did you mean 'timezone'?)"),
        ('limits: {window: {hours: "18:00-08:00"}}', "carillon.yaml:4:26: hours: '18:00-08:00' is not a window"),
        ("limits: {window: {hours: \"08:00-24:30\"}}", "carillon.yaml:4:26: hours: "),
        ("limits: {window: {hours: 08:00-18:00, days: [mon, Tue]}}", "carillon.yaml:4:51: item 2: 'Tue' is not one"),
        ("limits: {max_age: 3 moons}", "carillon.yaml:4:19: max_age: '3 moons' is not a duration"),
        ("limits: {max_attempts: 0}", "carillon.yaml:4:24: max_attempts: expected at least 1, got 0"),
        ("limits:\n  caps:\n    - {channel: email, messages: three, within: 7d}",
         "carillon.yaml:6:34: messages: expected a whole number, got 'three'"),
        ("gateways:\n  relay: {type: smpt, host: h}", "carillon.yaml:5:17: type: 'smpt' is not one of 'smtp', "),
        ("gateways:\n  relay: {host: h}", "carillon.yaml:5:3: 'type' is missing (one of smtp, http, kannel, "),
        ("gateways:\n  relay: {type: smtp, host: h, helllo: h}",
         "carillon.yaml:5:32: unknown key 'helllo' (did you mean 'helo'?)"),
        ("gateways:\n  r: {type: smtp, host: h, webhook: {type: posmark}}",
         "carillon.yaml:5:44: type: 'posmark' is not one of 'ses', 'sendgrid', 'mailgun', 'postmark' (did you mean '"),
        ("gateways:\n  sms: {type: twilio, account_sid: 12ab, auth_token: x, sender: A}",
         "carillon.yaml:5:36: account_sid: '12ab' is no account SID; it is AC and 32 hexadecimal digits"),
        ("routes:\n  main: {gateways: {relay: 1}}",
         "carillon.yaml:5:21: route 'main' leads to 'relay', which is no gateway (there are no gateways)"),
        ("gateways: {relay: {type: smtp, host: h}}\nroutes: {relay: {gateways: {relay: 1}}}",
         "carillon.yaml:5:10: 'relay' is the name of a gateway and of a route (rename one)"),
        ("gateways: {relay: {type: smtp, host: h}}\nroutes: {main: {gateways: {relya: 1}}}",
         "carillon.yaml:5:28: route 'main' leads to 'relya', which is no gateway (did you mean 'relay'?)"),
        (HTTP + '{to: "{to}", text: "{txt}"}}',
         "carillon.yaml:5:69: unknown placeholder {txt} (did you mean 'text'?)"),
        (HTTP + '{to: "{phone}", text: "{text}", copy: "{to}"}}',
         "carillon.yaml:5:55: unknown placeholder {phone} (known: {to}, {from}, {text}, {ref}, "),
        (HTTP + '{to: "{{ to }}", text: "{to}{text}"}}',
         "carillon.yaml:5:55: {{ to }} is not filled in as it is written (write {to})"),
        (HTTP + '{to: "{to}"}}',
         "carillon.yaml:5:3: the text goes nowhere: {text} is in none of url, query, json_body and form (put it where"),
        (HTTP + '{text: "{text}"}}', "carillon.yaml:5:3: the number goes nowhere: {to} is in none of url, query,"),
        (HTTP + '{to: "{to}", text: "{text}"}, form: {}}', "carillon.yaml:5:80: a request has one body (keep "),
        ("limits: {max_age: 0s}", "carillon.yaml:4:19: max_age: '0s' is no time at all; write one above zero"),
        ("limits: {max_age: -3d}", "carillon.yaml:4:19: max_age: '-3d' is not a duration"),
        ("gateways:\n  relay: {type: smtp, host: h, timeout: 0s}", "carillon.yaml:5:41: timeout: '0s' is no time"),
        ("report_gateway: relya\ngateways: {relay: {type: smtp, host: h}}",
         "carillon.yaml:4:17: report_gateway: 'relya' is no gateway; reports leave by one e-mail gateway (did "),
        ("report_gateway: relay", "carillon.yaml:4:17: report_gateway: 'relay' is no gateway; reports leave by one "),
        ("web: {public_url: go.acme.example}",
         "carillon.yaml:4:19: public_url: 'go.acme.example' is not a URL; write it with its scheme, as https://go.acme."),
        ("web: {public_url: 'ftp://acme.example'}", "carillon.yaml:4:19: public_url: 'ftp://acme.example' is not a "),
        ("web: {public_url: 'https://acme:http/'}", "carillon.yaml:4:19: public_url: 'https://acme:http/' is not a "),
        ("gateways:\n  sms: {type: kannel, url: kannel.example/cgi, username: u, password: p}",
         "carillon.yaml:5:28: url: 'kannel.example/cgi' is not a URL; write it with its scheme, as https://kannel."),
        ("rfm: {band: 0.5}", "carillon.yaml:4:13: band: expected less than 0.5, got 0.5"),
        ("rfm: {map: {groups: [{name: best, q: 1}]}}", "carillon.yaml:4:35: unknown key 'q' (known: f, m, name, r)"),
        ("gateways:\n  relay: {type: smtp}", "carillon.yaml:5:3: 'host' is missing"),
        ("gateways:\n  relay: {type: smtp, host: h, port: 99999}", "carillon.yaml:5:38: port: "),
        ("gateways:\n  relay: {type: smtp, host: h, rate: fast}", "carillon.yaml:5:38: rate: 'fast' is not a rate"),
        ("gateways:\n  Relay: {type: smtp, host: h}", "carillon.yaml:5:3: Relay: 'Relay' is not a name"),
        ("gateways:\n  relay: {type: smtp, host: h, tls: ssl}", "carillon.yaml:5:37: tls: 'ssl' is not one of "),
        ("web: {public_url: 12}", "carillon.yaml:4:19: public_url: expected text, got 12"),
        ("rfm: {scheme: deciles}", "carillon.yaml:4:15: scheme: 'deciles' is not one of "),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_line_and_column(tmp_path: Path, lines: str, problem: str) -> None:
    found = problems_of(tmp_path, BASE + lines)
    assert len(found) == 1, found
    assert found[0].startswith(problem), found


def test_a_provider_s_own_braces_and_a_text_in_the_address_are_left_alone(tmp_path: Path) -> None:
    own = '{phone: "{to}", body: "{text}", note: "{{order}} {1} {} ${x", inner: {list: ["{ref}"]}}}'
    address = "gateways:\n  sms: {type: http, url: 'http://h/{to}?t={text}', method: GET}"
    for text in (HTTP + own, address):
        load(tmp_path, BASE + text)


def test_all_wrong_values_are_told_at_once(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "brand: {name: A}\ncurrency: Euro\nsenders: {}\nlimits: {max_age: x}\nwebb: {}\n")
    assert [problem.split(":")[1] for problem in found] == ["1", "2", "3", "4", "5"]


# --- the environment -----------------------------------------------------------------------------------------


def test_a_missing_variable_is_a_problem_with_its_place(tmp_path: Path) -> None:
    text = BASE + 'gateways:\n  relay: {type: smtp, host: h, username: u, password: "${RELAY_PASSWORD}"}\n'
    assert problems_of(tmp_path, text) == [
        "carillon.yaml:5:55: the environment has no RELAY_PASSWORD (export RELAY_PASSWORD=… before you start Carillon)"
    ]


def test_variables_fill_text_and_ports(tmp_path: Path) -> None:
    text = BASE + 'gateways:\n  relay: {type: smtp, host: "mail.${DOMAIN}", port: "${PORT}", password: "${PASSWORD}"}\n'
    relay = load(tmp_path, text, DOMAIN="acme.example", PORT="2525", PASSWORD="12345").settings.gateways["relay"]
    assert (relay.host, relay.port) == ("mail.acme.example", 2525)
    assert relay.password is not None
    assert relay.password.get_secret_value() == "12345", "a password of digits stays text"


def test_a_secret_is_never_printed(tmp_path: Path) -> None:
    text = BASE + 'gateways:\n  relay: {type: smtp, host: h, password: "${PASSWORD}"}\nweb: {api_token: "${TOKEN}"}\n'
    workspace = load(tmp_path, text, PASSWORD="hunter2", TOKEN="tok-123", CARILLON_SECRET_KEY="s3cret" * 6)
    shown = f"{workspace!r} {workspace.settings} {workspace.settings.model_dump()}"
    shown += json.dumps(workspace.settings.model_dump(mode="json"))
    for secret in ("hunter2", "tok-123", "s3cret"):
        assert secret not in shown
    assert workspace.api_token == "tok-123"


def test_a_secret_in_the_wrong_place_is_not_shown_in_the_problem(tmp_path: Path) -> None:
    text = BASE + 'gateways:\n  relay: {type: smtp, host: h, port: "${PASSWORD}"}\n'
    assert "hunter2" not in "\n".join(problems_of(tmp_path, text, PASSWORD="hunter2"))


def test_the_environment_chooses_database_broker_and_token(tmp_path: Path) -> None:
    workspace = load(
        tmp_path,
        BASE,
        CARILLON_DATABASE_URL="postgresql://carillon@db/carillon",
        CARILLON_BROKER_URL="redis://cache:6379/0",
        CARILLON_API_TOKEN="from-environment",
    )
    assert workspace.database_url == "postgresql://carillon@db/carillon"
    assert workspace.broker_url == "redis://cache:6379/0"
    assert not workspace.embedded_broker
    assert workspace.api_token == "from-environment"


# --- keys and folders ----------------------------------------------------------------------------------------


def test_an_embedded_workspace_makes_its_own_key_once(tmp_path: Path) -> None:
    first, second = load(tmp_path, BASE), load(tmp_path, BASE)
    assert first.signer().address_token(1) == second.signer().address_token(1)
    assert (tmp_path / ".carillon" / "secret_key").stat().st_mode & 0o077 == 0
    assert (tmp_path / ".carillon").stat().st_mode & 0o077 == 0


def test_a_shared_database_needs_a_shared_key(tmp_path: Path) -> None:
    workspace = load(tmp_path, BASE, CARILLON_DATABASE_URL="postgresql://carillon@db/carillon")
    with pytest.raises(ConfigError, match="CARILLON_SECRET_KEY is not set"):
        workspace.signer()


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 32 characters"):
        load(tmp_path, BASE, CARILLON_SECRET_KEY="short").signer()


def test_a_half_written_key_is_told_from_a_whole_one(tmp_path: Path) -> None:
    workspace = load(tmp_path, BASE)
    (workspace.data_dir / "secret_key").write_bytes(b"")
    with pytest.raises(ConfigError, match="at least 32 characters"):
        workspace.signer()


def test_the_socket_of_redis_fits_whatever_the_path(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 20) / ("deep" * 20)
    deep.mkdir(parents=True)
    workspace = load(deep, BASE)
    assert len(os.fsencode(workspace.redis_socket)) <= 104
    assert workspace.redis_socket.parent == Path(tempfile.gettempdir())
    assert workspace.redis_socket == load(deep, BASE).redis_socket


def test_a_socket_path_is_measured_in_bytes(tmp_path: Path) -> None:
    foreign = tmp_path / ("ü" * 40)
    foreign.mkdir()
    assert len(os.fsencode(load(foreign, BASE).redis_socket)) <= 104


def test_a_folder_without_carillon_yaml_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no carillon.yaml; make one with `carillon init"):
        load_workspace(tmp_path, {})


def test_a_window_is_read_in_minutes() -> None:
    assert minutes_of("08:00-24:00") == (480, 1440)
    with pytest.raises(ValueError, match="is not a window"):
        minutes_of("8-18")


def test_what_is_wrong_with_a_secret_is_told_without_it(tmp_path: Path) -> None:
    smpp = "gateways:\n  smsc: {type: smpp, host: h, system_id: s, password: hunter2secret}\n"
    numeric = "gateways:\n  smsc: {type: smpp, host: h, system_id: s, password: 12345678}\n"
    for text in (smpp, numeric):
        said = " ".join(problems_of(tmp_path, BASE + text))
        assert "password" in said
        assert "hunter2" not in said
        assert "12345678" not in said


def test_what_is_wrong_with_an_address_is_told_without_the_secret_in_it(tmp_path: Path) -> None:
    text = BASE + "gateways:\n  sms: {type: kannel, url: '//h.example/?k=${KEY}', username: u, password: p}\n"
    (said,) = problems_of(tmp_path, text, KEY="hunter2")
    assert said.endswith("url: '//h.example/?k=${KEY}' is not a URL; write it with its scheme, as https://h.example")


def test_a_budget_without_the_price_of_every_part_is_refused(tmp_path: Path) -> None:
    gateway = (
        'texts: {{type: http, url: "https://sms.example/send", json_body: {{to: "{{to}}", text: "{{text}}"}}{more}}}'
    )

    def with_(more: str, rest: str = "") -> str:
        return f"{BASE}gateways:\n  {gateway.format(more=more)}\n{rest}"

    own, every = 'budget: {amount: "5", per: day}', 'budget: {amount: "5", per: month}\n'
    for text in (with_(f", {own}"), with_(f', prices: {{"44": "0.04"}}, {own}'), with_("", every)):
        assert "a budget needs the price of every part" in " ".join(problems_of(tmp_path, text))
    load(tmp_path, with_(f', price: "0.04", {own}'))
    load(tmp_path, with_(', prices: {"44": "0.04", default: "0.07"}', every))
