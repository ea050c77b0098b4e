"""The doctor: looks at everything Carillon stands on, sends nothing, changes nothing, and says what to do."""

from __future__ import annotations

import platform
import shlex
import shutil
import socket
import ssl
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

from kombu.connection import Connection as BrokerConnection
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from kernel.clock import from_ms
from kernel.errors import CarillonError, ConfigError, GatewayDown, InputError
from kernel.gateways import SmtpGateway
from kernel.settings import Workspace, load_workspace
from kernel.vocabulary import Channel
from store.engine import open_database, reading, writing
from store.schema import head, revision
from store.sql import insert_into
from store.tables import meta
from store.types import database_now
from templates.dkim import keys_of
from workers.channels.registry import open_channel
from workers.embedded import answers
from workers.hints import FOR_HOMELESS, about_homeless
from workers.inbound.imap import probe
from workers.status import homeless, stuck_campaigns

PATIENCE_S = 10.0
"""How long a server may take to answer; a campaign's own patience is longer."""
_SKEW_WARN_S, _SKEW_FAIL_S = 2.0, 30.0
_FREE_WARN, _FREE_FAIL = 1_000_000_000, 100_000_000
_FAIR_RSA_BITS = 2048
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class Health(StrEnum):
    """What a check found: all well, worth knowing, or in the way of sending."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor's report; `remedy` says what to do and is "" where all is well."""

    name: str
    health: Health
    says: str
    remedy: str = ""


@runtime_checkable
class _Probing(Protocol):
    """A channel that can greet its gateway without sending."""

    def probe(self) -> str: ...


def examine(root: Path, *, now: datetime) -> Iterator[Check]:
    """Yield the checks one by one, as they are done.

    Args:
        root: The workspace's folder.
        now: The machine's clock, which is compared with the database's.
    """
    try:
        workspace = load_workspace(root)
    except InputError as error:
        for problem in error.problems:
            yield _fail("settings", str(problem), "mend carillon.yaml and run `carillon doctor` again")
        return
    except ConfigError as error:
        yield _fail("settings", str(error), "run the command in a workspace, or name one with --workspace")
        return
    yield _ok("settings", f"{workspace.root / 'carillon.yaml'} is in order")
    slow = about_build(sysconfig.get_config_var("CONFIG_ARGS"))
    if slow is not None:
        yield slow
    yield _secret_key(workspace)
    yield from _signatures(workspace)
    yield from _database(workspace, now)
    yield from _broker(workspace)
    yield from _gateways(workspace)
    yield from _mailboxes(workspace)
    yield _public_url(workspace)
    yield _disk(workspace)


def about_build(arguments: str | None) -> Check | None:
    """Return a warning of a Python that was built without its profile-guided optimisation; None where nothing says so.

    Args:
        arguments: What it was configured with; None where that is not known, as on Windows.

    Neither flags nor PGO_PROF_USE_FLAG tell: they name what the compiler could do, not what was done. Distributions
    that build for `/usr` profile by a make target of their own, so that only other prefixes are judged.
    """
    told = None if arguments is None else shlex.split(arguments)
    if told is None or "--enable-optimizations" in told or "--prefix=/usr" in told:
        return None
    says = f"Python {platform.python_version()} was built without --enable-optimizations: it runs about a third slower"
    remedy = "use your distribution's Python, or build it with PYTHON_CONFIGURE_OPTS=--enable-optimizations (pyenv)"
    return _warn("python", says, remedy)


def _secret_key(workspace: Workspace) -> Check:
    try:
        workspace.signer()
    except ConfigError as error:
        return _fail("secret key", str(error), "set CARILLON_SECRET_KEY for every process")
    if workspace.environment.get("CARILLON_SECRET_KEY"):
        return _ok("secret key", "CARILLON_SECRET_KEY is set")
    return _ok("secret key", "kept in .carillon/secret_key; links in messages need it, so back it up")


def _signatures(workspace: Workspace) -> Iterator[Check]:
    for name, sender in workspace.settings.senders.items():
        if not sender.dkim:
            continue
        try:
            keys = keys_of(sender, workspace.root)
        except CarillonError as error:
            yield _fail(f"sender {name}", str(error), "campaigns of this sender cannot leave until it is mended")
            continue
        says = ", ".join(f"{key.algorithm} with {key.name}" for key in keys)
        short = [key for key in keys if key.algorithm == "rsa-sha256" and key.bits < _FAIR_RSA_BITS]
        if short:
            remedy = "make one of 2048 bits with `carillon dkim new`: some receivers ignore shorter ones"
            yield Check(name=f"sender {name}", health=Health.WARN, says=f"signs by {says}", remedy=remedy)
        else:
            yield _ok(f"sender {name}", f"signs by {says}; `carillon dkim records` shows what belongs in the DNS")


# --- the database --------------------------------------------------------------------------------------------


def _database(workspace: Workspace, now: datetime) -> Iterator[Check]:
    try:
        engine = open_database(workspace.database_url)
    except CarillonError as error:
        yield _fail("database", str(error), "correct CARILLON_DATABASE_URL")
        return
    shown = make_url(workspace.database_url).render_as_string(hide_password=True)
    try:
        skew_s = (_database_time(engine) - now).total_seconds()
        yield _ok("database", f"{shown} answers")
        yield _schema(engine)
        yield _clock(skew_s)
        yield from _campaigns(engine, workspace)
    except SQLAlchemyError as error:
        yield _fail(
            "database", f"{shown}: {_first_line(error)}", "start the database, or correct CARILLON_DATABASE_URL"
        )
    finally:
        engine.dispose()


def _campaigns(engine: Engine, workspace: Workspace) -> Iterator[Check]:
    if revision(engine) != head():
        return
    with reading(engine) as connection:
        stuck = stuck_campaigns(connection)
        waiting = homeless(connection, workspace.settings.gateways)
    for words in stuck:
        yield _fail("campaigns", words, "mend what it names; the scheduler tries again every second")
    for gateway, count in waiting.items():
        yield _fail(f"gateway {gateway}", about_homeless(gateway, count), FOR_HOMELESS)


def _database_time(engine: Engine) -> datetime:
    with reading(engine) as connection:
        return from_ms(connection.execute(select(database_now())).scalar_one())


def _schema(engine: Engine) -> Check:
    present, newest = revision(engine), head()
    if present is None:
        return _warn("schema", "the database is empty", "nothing to do: the first command makes the tables")
    if present != newest:
        return _warn(
            "schema",
            f"the database stands at revision {present}, this Carillon at {newest}",
            "make a backup; the next command upgrades the database",
        )
    try:
        _try_to_write(engine)
    except SQLAlchemyError as error:
        return _fail(
            "schema", f"cannot write: {_first_line(error)}", "give Carillon's database user the right to write"
        )
    return _ok("schema", f"at revision {present}, and writable")


def _try_to_write(engine: Engine) -> None:
    with writing(engine) as connection, connection.begin_nested() as attempt:
        connection.execute(insert_into(connection, meta).values(key="doctor", value="").on_conflict_do_nothing())
        attempt.rollback()


def _clock(skew_s: float) -> Check:
    says = f"the database's clock and this machine's differ by {abs(skew_s):.1f} s"
    remedy = "keep both on time with NTP: what is due, and how long a claim lasts, is measured by the database's clock"
    if abs(skew_s) >= _SKEW_FAIL_S:
        return _fail("clock", says, remedy)
    return _warn("clock", says, remedy) if abs(skew_s) >= _SKEW_WARN_S else _ok("clock", says)


# --- the broker ----------------------------------------------------------------------------------------------


def _broker(workspace: Workspace) -> Iterator[Check]:
    if workspace.embedded_broker:
        yield _embedded_redis(workspace)
        return
    url = workspace.broker_url
    shown = make_url(url).render_as_string(hide_password=True) if "://" in url else url
    try:
        if url.startswith(("redis://", "rediss://", "unix://")):
            client = Redis.from_url(url, socket_connect_timeout=PATIENCE_S, socket_timeout=PATIENCE_S)
            client.ping()
            yield _ok("broker", f"{shown} answers")
            yield _memory_policy(client)
            return
        with BrokerConnection(url, connect_timeout=PATIENCE_S) as connection:
            connection.ensure_connection(max_retries=1, timeout=PATIENCE_S)
        yield _ok("broker", f"{shown} answers")
    except Exception as error:  # noqa: BLE001 - kombu's transports each raise their own family
        yield _fail(
            "broker",
            f"{shown}: {_first_line(error)}",
            "start it, or correct CARILLON_BROKER_URL; no message is lost meanwhile",
        )


def _embedded_redis(workspace: Workspace) -> Check:
    if not answers(workspace):
        return _warn("broker", "the embedded Redis is not running", "nothing to do: `carillon up` starts it")
    return _ok("broker", f"the embedded Redis answers on {workspace.redis_socket}")


def _memory_policy(client: Any) -> Check:
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "")
    except RedisError:
        return _warn(
            "broker memory",
            "Redis does not tell its maxmemory-policy",
            "make sure with your provider that it is noeviction",
        )
    if policy != "noeviction":
        return _warn(
            "broker memory",
            f"maxmemory-policy is {policy}: Redis may throw hints away",
            "set maxmemory-policy noeviction; until then the sweeper finds what hints forget, only later",
        )
    return _ok("broker memory", "maxmemory-policy is noeviction")


# --- the gateways --------------------------------------------------------------------------------------------


def _gateways(workspace: Workspace) -> Iterator[Check]:
    if not workspace.settings.gateways_for(Channel.EMAIL):
        yield _warn("gateways", "there is no e-mail gateway", "add one under `gateways:` to send e-mail and reports")
    for name, gateway in workspace.settings.gateways.items():
        try:
            yield _ok(f"gateway {name}", _greet(workspace, name))
        except (CarillonError, OSError) as error:
            yield _fail(f"gateway {name}", _first_line(error), _gateway_remedy(gateway))
        if isinstance(gateway, SmtpGateway) and gateway.tls == "none" and gateway.host not in _LOCAL_HOSTS:
            yield _warn(
                f"gateway {name}",
                f"mail and password go to {gateway.host} unencrypted",
                "set tls: starttls or tls: implicit",
            )


def _greet(workspace: Workspace, name: str) -> str:
    """Greet a gateway without sending; return what it said."""
    gateway = workspace.settings.gateways[name]
    hasty = gateway.model_copy(update={"timeout": f"{PATIENCE_S:.0f}s"})
    settings = workspace.settings.model_copy(update={"gateways": {name: hasty}})
    channel = open_channel(Workspace(workspace.root, settings, workspace.environment), name)
    try:
        if isinstance(channel, _Probing):
            return (
                f"{gateway.host}:{gateway.port} says {channel.probe()}"
                if isinstance(gateway, SmtpGateway)
                else channel.probe()
            )
    finally:
        if channel is not None:
            channel.close()
    return _knock(str(getattr(gateway, "url", "")))


def _knock(url: str) -> str:
    """Connect to a URL's host, verify its certificate, and ask it nothing."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    with socket.create_connection((host, port), timeout=PATIENCE_S) as plain:
        if secure:
            with ssl.create_default_context().wrap_socket(plain, server_hostname=host):
                pass
    return f"{host}:{port} answers{', certificate verified' if secure else ''}; nothing was sent"


def _gateway_remedy(gateway: Any) -> str:
    if isinstance(gateway, SmtpGateway):
        return "check host, port, tls, username and password with your provider; messages wait meanwhile"
    return "check the gateway's url and this machine's way out; messages wait meanwhile"


# --- the rest ------------------------------------------------------------------------------------------------


def _mailboxes(workspace: Workspace) -> Iterator[Check]:
    for box in workspace.settings.inbound.imap:
        name = f"mailbox {box.username}@{box.host}"
        try:
            waiting = probe(box)
        except GatewayDown as error:
            yield _fail(name, error.text, "check inbound.imap: bounces there are not read until it answers")
        else:
            yield _ok(name, f"logs in; {waiting:,} mails wait in {box.folder}")


def _public_url(workspace: Workspace) -> Check:
    url = workspace.settings.web.public_url
    parts = urlsplit(url)
    if parts.hostname in _LOCAL_HOSTS:
        return _warn(
            "public url",
            f"links in messages lead to {url}, which only this machine can open",
            "set web.public_url to the address customers reach `carillon web` by",
        )
    if parts.scheme != "https":
        return _warn(
            "public url",
            f"links in messages lead to {url} without encryption",
            "serve it by https: one-click unsubscribe needs it (RFC 8058)",
        )
    return _ok("public url", f"links in messages lead to {url}")


def _disk(workspace: Workspace) -> Check:
    free = shutil.disk_usage(workspace.data_dir).free
    says = f"{free / 1e9:,.1f} GB free where {workspace.data_dir} lies"
    if free < _FREE_FAIL:
        return _fail("disk", says, "make room: with a full disk nothing can be recorded, so nothing is sent")
    return _warn("disk", says, "make room soon") if free < _FREE_WARN else _ok("disk", says)


def _ok(name: str, says: str) -> Check:
    return Check(name=name, health=Health.OK, says=says)


def _warn(name: str, says: str, remedy: str) -> Check:
    return Check(name=name, health=Health.WARN, says=says, remedy=remedy)


def _fail(name: str, says: str, remedy: str) -> Check:
    return Check(name=name, health=Health.FAIL, says=says, remedy=remedy)


def _first_line(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]
