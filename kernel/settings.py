"""The workspace: where it lies, what carillon.yaml says, and what the environment adds."""

from __future__ import annotations

import hashlib
import os
import re
import secrets as random_secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, model_validator

from kernel.dkim_keys import DkimKeySettings
from kernel.documents import Document, did_you_mean, read_document
from kernel.errors import ConfigError, Refusal
from kernel.fields import CurrencyCode, Name, SpanText, Strict, UrlText, WindowSpec, ZoneName, form
from kernel.gateways import Gateway
from kernel.limits import Budget, Route
from kernel.regions import Region
from kernel.signing import Signer
from kernel.sms_terms import SmsTerms
from kernel.strict_yaml import KEY
from kernel.vocabulary import Channel

_ENV = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_SOCKET_PATH_LIMIT = 100
"""Unix socket paths longer than about 107 bytes are refused by the kernel."""


class Brand(Strict):
    name: str = Field(description="Shown in footers and reports.")
    postal_address: str = Field(description="Required by law in every marketing e-mail.")
    website: str = ""
    color: Annotated[str, form("#[0-9a-fA-F]{6}", 'is not a colour; write it as "#1f4e79"')] = "#1f4e79"


class Sender(Strict):
    name: str
    email: str
    reply_to: str | None = None
    bounce_domain: str | None = Field(default=None, description="Domain of bounce addresses; default: the sender's.")
    feedback_id: (
        Annotated[str, form("[A-Za-z0-9]{5,15}", "is no Feedback-ID; write 5 to 15 letters and digits")] | None
    ) = None
    dkim: list[DkimKeySettings] = Field(default=[], description="Keys that sign; best an RSA and an Ed25519 one.")
    dkim_expires: SpanText | None = Field(default=None, description="How long signatures hold; none: for ever.")


class FrequencyCap(Strict):
    """At most `messages` accepted messages of the channel to one contact within the last `within`."""

    channel: Literal["email", "sms"]
    messages: int = Field(ge=1)
    within: SpanText


class Limits(Strict):
    window: WindowSpec = WindowSpec()
    caps: list[FrequencyCap] = Field(default=[])
    max_age: SpanText = Field(default="3d", description="A message later than this past its time is not sent.")
    max_attempts: int = Field(default=8, ge=1)
    first_retry: SpanText = Field(default="5min", description="No deferred message is tried again sooner.")
    longest_retry: SpanText = Field(default="4h", description="No wait between two tries is longer.")
    in_doubt: Literal["keep", "resend"] = Field(
        default="keep",
        description="Of what may or may not have been sent: keep it so, or resend it, once, 15 minutes later.",
    )


class RfmGroupRule(Strict):
    """A named group of the shop's own map: which scores belong to it; an axis left out takes every score."""

    name: Annotated[
        str, form("[a-z][a-z0-9_]{0,62}", "is no group; use small letters, digits and _, starting with a letter")
    ]
    r: list[int] | None = Field(default=None, min_length=1, description="Scores of recency, as [4, 5].")
    f: list[int] | None = Field(default=None, min_length=1, description="Scores of frequency.")
    m: list[int] | None = Field(default=None, min_length=1, description="Scores of money.")


class RfmMapSettings(Strict):
    """The shop's own map from scores to groups: complete and, unless ordered, without overlap."""

    ordered: bool = Field(default=False, description="true: the first group that fits is the one.")
    groups: list[RfmGroupRule] = Field(min_length=1)


class RfmSettings(Strict):
    """How RFM is scored unless a command says otherwise."""

    scheme: Literal["quintiles", "quantiles", "thresholds", "equal_behaviour", "thirds"] = "quintiles"
    scores: int = Field(default=5, ge=2, le=10, description="How many scores an axis has, for scheme: quantiles.")
    ties: Literal["stable", "first"] = "stable"
    monetary: Literal["net", "gross", "margin", "average"] = "net"
    recency: Literal["days", "relative"] = Field(
        default="days", description="relative: days since the last order over the account's own median gap."
    )
    map: Literal["grid", "eleven", "six"] | RfmMapSettings | None = Field(
        default=None, description="Scores to groups; default: six for scheme: thirds, else grid."
    )
    window: SpanText | None = None
    rollup: Literal["none", "parent", "top"] = Field(
        default="none", description="Score each account by itself, or children together with their parent or topmost."
    )
    band: float = Field(
        default=0.0, ge=0, lt=0.5, description="Hysteresis: a border is crossed only by more than this share of it."
    )
    recency_days: list[int] | None = Field(
        default=None, description="Thresholds, best first: at most these days = 5, 4, 3, 2."
    )
    orders: list[int] | None = Field(
        default=None, description="Thresholds, best first: at least these orders = 5, 4, 3, 2."
    )
    money: list[float] | None = Field(default=None, description="Thresholds, best first, in major units.")
    refit_every: SpanText = Field(
        default="30d", description="How long cut-offs stay frozen before they are fitted anew."
    )


Feature = Literal[
    "recency_days", "orders", "net", "average_order", "gap_days", "products", "return_share", "tenure_days"
]


class ClusterSettings(Strict):
    """How buyers are grouped by k-means."""

    k: int | None = Field(default=None, ge=2, le=20, description="How many; none: chosen by stability and size.")
    features: list[Feature] | None = Field(
        default=None, min_length=1, description="Default: recency, orders, money, cadence, assortment, return share."
    )
    seed: int = 1
    refit_every: SpanText = Field(default="30d", description="Between fits labels are assigned by frozen centroids.")
    largest_move: float = Field(
        default=0.5, gt=0, le=1, description="A fit that moves a larger share of the buyers is held until approved."
    )


class LifetimeSettings(Strict):
    """How customer lifetime value is predicted."""

    model: Literal["bg_nbd", "mbg_nbd"] = Field(
        default="bg_nbd", description="mbg_nbd: who ordered once may be lost too."
    )
    horizon: SpanText = "365d"
    margin: float = Field(default=1.0, gt=0, le=1, description="Share of revenue that is contribution.")
    annual_discount: float = Field(default=0.1, ge=0, lt=1)
    refit_every: SpanText = "7d"


class WarehouseColumns(Strict):
    """What the columns of orders elsewhere are called; of two spellings of one thing, at most one."""

    subject: str = Field(min_length=1, description="The subject's external id, a text or a whole number.")
    ordered_at: str | None = Field(default=None, description="A timestamp; or ordered_ms.")
    ordered_ms: str | None = Field(default=None, description="Milliseconds since 1970 UTC.")
    cancelled_at: str | None = Field(default=None, description="A timestamp; or cancelled_ms.")
    cancelled_ms: str | None = Field(default=None, description="Milliseconds since 1970 UTC.")
    amount: str | None = Field(default=None, description="Net, in major units; or amount_minor.")
    amount_minor: str | None = Field(default=None, description="Net, in minor units.")
    gross: str | None = Field(default=None, description="What was ordered; default: the amount of orders above 0.")
    gross_minor: str | None = Field(default=None, description="The same in minor units.")
    cost: str | None = Field(default=None, description="What the order cost you, in major units.")
    cost_minor: str | None = Field(default=None, description="The same in minor units.")
    kind: str | None = Field(default=None, description="order, return, …; default: amounts below 0 are returns.")
    currency: str | None = Field(default=None, description="ISO 4217; default: the workspace's.")
    product: str | None = Field(default=None, description="What was bought, where a row has one product.")
    order: str | None = Field(default=None, description="The order's number, to name it in messages.")

    @model_validator(mode="after")
    def _one_of_each(self) -> WarehouseColumns:
        for one, other, needed in (
            ("ordered_at", "ordered_ms", True),
            ("amount", "amount_minor", True),
            ("cancelled_at", "cancelled_ms", False),
            ("gross", "gross_minor", False),
            ("cost", "cost_minor", False),
        ):
            given = sum(getattr(self, name) is not None for name in (one, other))
            if given > 1 or (needed and not given):
                raise ValueError(f"give {'one' if needed else 'at most one'} of {one} and {other}")
        return self


class WarehouseSettings(Strict):
    """Orders that live elsewhere: a table or a query behind a SQLAlchemy URL, one row per order."""

    url: SecretStr
    table: str | None = Field(default=None, min_length=1)
    query: str | None = Field(default=None, min_length=1)
    subject: Literal["account", "contact"] = Field(default="account", description="Whose external id the key is.")
    columns: WarehouseColumns
    timezone: ZoneName = Field(default="UTC", description="Of timestamps that carry none.")
    memory: Annotated[str, form("[1-9][0-9]*(MB|GB)", 'is no size; write it as "512MB" or "2GB"')] = Field(
        default="2GB", description="DuckDB's limit; beyond it spills."
    )
    threads: int | None = Field(default=None, ge=1, description="DuckDB's; default: one for each core.")

    @model_validator(mode="after")
    def _table_or_query(self) -> WarehouseSettings:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either a table or a query")
        return self


class WebSettings(Strict):
    public_url: UrlText = Field(default="http://127.0.0.1:8025", description="What links in messages begin with.")
    host: str = "127.0.0.1"
    port: int = Field(default=8025, ge=0, le=65535)
    api_token: SecretStr | None = None
    trusted_proxies: list[str] = Field(default=[])


class ImapBox(Strict):
    """A mailbox to collect returned mail from."""

    host: str
    port: int = Field(default=993, ge=1, le=65535)
    tls: Literal["implicit", "starttls", "none"] = Field(
        default="implicit", description="implicit and starttls verify the certificate; none only for localhost."
    )
    ca_file: str | None = None
    username: str
    password: SecretStr
    folder: str = Field(default="INBOX", min_length=1)
    move_to: str | None = Field(default=None, min_length=1, description="Folder for what was read; none: marked seen.")


class InboundSettings(Strict):
    """The door for bounces: an SMTP and LMTP listener, folders in Maildir form, mailboxes by IMAP."""

    host: str = "127.0.0.1"
    smtp_port: int | None = Field(default=None, ge=0, le=65535)
    maildirs: list[str] = Field(default=[])
    imap: list[ImapBox] = Field(default=[])


class BounceRule(Strict):
    """After how many bounces that may pass an address is left alone, and for how long."""

    bounces: int = Field(default=3, ge=1)
    within: SpanText = Field(default="14d", description="The bounces lie no further apart than this.")
    pause: SpanText = Field(default="30d", description="Counted from the last of them.")


class SuppressionSettings(Strict):
    """Suppressions that end by themselves; a hard bounce, a complaint and a person's word do not."""

    soft: BounceRule = BounceRule()
    full: BounceRule = Field(default=BounceRule(), description="Of mailboxes that are full; counted by itself.")


class Settings(Strict):
    """What carillon.yaml may say."""

    brand: Brand
    currency: CurrencyCode = "EUR"
    timezone: ZoneName = "UTC"
    language: str = "en"
    senders: dict[Name, Sender] = Field(min_length=1)
    gateways: dict[Name, Gateway] = Field(default={})
    routes: dict[Name, Route] = Field(default={}, description="Gateways that stand in for each other, by a name.")
    budget: Budget | None = Field(default=None, description="What all SMS together may cost.")
    limits: Limits = Limits()
    rfm: RfmSettings = RfmSettings()
    clusters: ClusterSettings = ClusterSettings()
    lifetime: LifetimeSettings = LifetimeSettings()
    rates: str | None = Field(default=None, description="CSV file of exchange rates: from, currency, rate.")
    warehouse: WarehouseSettings | None = Field(default=None, description="Orders that live elsewhere.")
    web: WebSettings = WebSettings()
    inbound: InboundSettings = InboundSettings()
    suppression: SuppressionSettings = SuppressionSettings()
    regions: dict[Name, Region] = Field(default={}, description="What a region's law wants in e-mails.")
    label: str = Field(default="", description="Shown on top of every report, as 'Simulated customers'.")
    report_gateway: Name | None = Field(default=None, description="E-mail gateway for reports; default: the first.")

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Settings:
        Refusal.all_of(refusal for name in self.routes for refusal in self._about_route(name))
        return self

    def _about_route(self, name: str) -> Iterator[Refusal]:
        ways = self.routes[name].gateways
        if name in self.gateways:
            message = f"{name!r} is the name of a gateway and of a route"
            yield Refusal(message, "rename one", at=("routes", KEY, name))
        for one in ways:
            if one not in self.gateways:
                hint = did_you_mean(one, self.gateways) or "there are no gateways"
                message = f"route {name!r} leads to {one!r}, which is no gateway"
                yield Refusal(message, hint, at=("routes", name, "gateways", KEY, one))
        if len({self.gateways[one].channel for one in ways if one in self.gateways}) > 1:
            message = f"route {name!r} has gateways for e-mail and for SMS"
            yield Refusal(message, "one of a kind cannot stand in for the other", at=("routes", name, "gateways"))

    @model_validator(mode="after")
    def _reports_have_a_way_out(self) -> Settings:
        name, fitting = self.report_gateway, self.gateways_for(Channel.EMAIL)
        if name is not None and name not in fitting:
            is_ = "a route" if name in self.routes else "a gateway for SMS" if name in self.gateways else "no gateway"
            hint = did_you_mean(name, fitting) or "there is no e-mail gateway"
            message = f"report_gateway: {name!r} is {is_}; reports leave by one e-mail gateway"
            raise Refusal(message, hint, at=("report_gateway",))
        return self

    @model_validator(mode="after")
    def _budget_needs_prices(self) -> Settings:
        unpriced = [name for name, one in self.gateways_for(Channel.SMS).items() if not one.prices_everything]
        if self.budget is not None and unpriced:
            message = f"a budget needs the price of every part, and gateway {unpriced[0]!r} has none for some"
            raise Refusal(message, "give it `price`, or `prices` with a default", at=("budget",))
        return self

    def gateway_at(self, way: str | None) -> Any:
        """Return the gateway of that name, or the first of the route of that name; None where there is none."""
        route = self.routes.get(way or "")
        return self.gateways.get(next(iter(route.gateways)) if route else way or "")

    def sms_terms(self, way: str | None) -> SmsTerms:
        """Return the terms of the SMS gateway a step leaves by; the silent ones where there is none."""
        found = self.gateway_at(way)
        return found if isinstance(found, SmsTerms) else SmsTerms()

    def gateways_for(self, channel: Channel) -> dict[str, Any]:
        """Return the gateways of a channel by name, in the order of the file."""
        return {name: gateway for name, gateway in self.gateways.items() if gateway.channel is channel}

    def routes_for(self, channel: Channel) -> dict[str, Route]:
        """Return the routes of a channel by name."""
        return {
            name: route
            for name, route in self.routes.items()
            if self.gateways[next(iter(route.gateways))].channel is channel
        }


@dataclass(frozen=True, slots=True)
class Workspace:
    """A marketer's folder, its settings, and what the environment says."""

    root: Path
    settings: Settings
    environment: Mapping[str, str] = field(repr=False)

    @property
    def data_dir(self) -> Path:
        """The folder of embedded data; made on first use, readable by its owner only."""
        path = self.root / ".carillon"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    @property
    def database_url(self) -> str:
        return self.environment.get("CARILLON_DATABASE_URL") or f"sqlite:///{self.data_dir / 'carillon.db'}"

    @property
    def redis_socket(self) -> Path:
        """Where the embedded Redis listens; in the system's temporary folder where the workspace's path is too long."""
        path = self.data_dir / "redis.sock"
        if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
            return path
        short = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"carillon-{os.getuid()}-{short}.sock"

    @property
    def embedded_broker(self) -> bool:
        return not self.environment.get("CARILLON_BROKER_URL")

    @property
    def broker_url(self) -> str:
        return self.environment.get("CARILLON_BROKER_URL") or f"redis+socket://{self.redis_socket}"

    @property
    def api_token(self) -> str | None:
        """The token of the ingest API; None closes the API."""
        from_file = self.settings.web.api_token
        return self.environment.get("CARILLON_API_TOKEN") or (from_file.get_secret_value() if from_file else None)

    def signer(self) -> Signer:
        """Return the signer over CARILLON_SECRET_KEY (comma-separated ring, newest first).

        In an embedded workspace without that variable a key is made once and kept in `.carillon/secret_key`,
        readable by its owner only.

        Raises:
            ConfigError: a key is too short, or missing where the database is not the embedded one.
        """
        ring = self.environment.get("CARILLON_SECRET_KEY", "")
        if ring:
            return Signer([part.strip().encode() for part in ring.split(",") if part.strip()])
        if self.environment.get("CARILLON_DATABASE_URL"):
            raise ConfigError(
                "CARILLON_SECRET_KEY is not set; make one with `openssl rand -hex 32` and give it to every process"
            )
        return Signer([_own_key(self.data_dir / "secret_key")])


def _own_key(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes().strip()
    with os.fdopen(handle, "wb") as file:
        key = random_secrets.token_hex(32).encode()
        file.write(key)
    return key


def load_workspace(root: Path, environment: Mapping[str, str] | None = None) -> Workspace:
    """Return the workspace in a folder.

    Raises:
        ConfigError: there is no carillon.yaml.
        InputError: carillon.yaml is wrong; every problem with line and column.
    """
    root = root.resolve()
    path = root / "carillon.yaml"
    if not path.is_file():
        raise ConfigError(f"{root} is not a workspace: it has no carillon.yaml; make one with `carillon init {root}`")
    environment = os.environ if environment is None else environment
    document = read_document(path, shown_as="carillon.yaml")
    document = _with_environment(document, environment)
    return Workspace(root=root, settings=document.validate(Settings), environment=environment)


def _with_environment(document: Document, environment: Mapping[str, str]) -> Document:
    problems = list(document.problems)

    def filled(value: Any, place: tuple[str | int, ...]) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner, (*place, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner, (*place, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        problems.extend(
            document.problem(place, f"the environment has no {name}", f"export {name}=… before you start Carillon")
            for name in _ENV.findall(value)
            if name not in environment
        )
        whole = _ENV.sub(lambda found: environment.get(found[1], ""), value)
        return int(whole) if whole != value and whole.isascii() and whole.isdigit() and _wants_number(place) else whole

    return document.replaced(filled(document.data, ()), problems)


def _wants_number(place: tuple[str | int, ...]) -> bool:
    return bool(place) and place[-1] in ("port", "smtp_port")
