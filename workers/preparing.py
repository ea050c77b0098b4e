"""From a claimed chunk to parcels ready to leave: eligibility, rates, rendering. Everything here is harmless."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from campaigns.clearing import Recipient, clear
from campaigns.judging import Go, Skip
from campaigns.rendering import prepare_step
from campaigns.schema import CampaignSpec
from campaigns.versions import PinnedCampaign, load_version
from kernel.clock import from_ms
from kernel.errors import CarillonError
from kernel.settings import Workspace
from kernel.signing import Signer
from kernel.sms_terms import Tariff, tariff_of
from kernel.vocabulary import FailReason, SkipReason
from store.engine import reading
from store.ingest.bulk import by_index
from store.ledger import Claim, ClaimedMessage
from store.links import LinkRegistry
from store.schema import installation
from store.tables import contacts
from templates.context import LOOKED_UP, contexts_of, person_columns
from templates.mail import ComposedMail, MailStep
from templates.sms import ComposedSms, SmsStep
from workers.channels.port import Parcel
from workers.flight import Passenger
from workers.limits.gate import Gate
from workers.limits.retries import RetryPolicy, retry_policy

log = structlog.get_logger(__name__)

_EMAIL = next(at for at, column in enumerate(person_columns()) if column is contacts.c.email)
_KEPT_STEPS = 64
MOST_OCTETS = 32_000_000
"""So much of e-mails is made at once; what more a chunk holds goes back: a thousand with a brochure fill no memory."""
_OPERATOR_WAIT = timedelta(minutes=5)


@dataclass(slots=True)
class Prepared:
    """A chunk sorted by what is to become of it. Keys are message ids."""

    go: list[Passenger] = field(default_factory=list)
    skipped: dict[int, SkipReason] = field(default_factory=dict)
    failed: dict[int, tuple[FailReason, str]] = field(default_factory=dict)
    postponed: dict[int, datetime] = field(default_factory=dict)
    octets: int = 0
    """Of all e-mails that go."""

    def hold_back(self, until: Mapping[int, datetime]) -> None:
        """Postpone some of those that were to go."""
        if until:
            self.go = [passenger for passenger in self.go if passenger.parcel.message_id not in until]
            self.postponed |= until


class _Ready(NamedTuple):
    """What all messages of a step in one language share."""

    step: MailStep | SmsStep
    retry: RetryPolicy


class Preparer:
    """Keeps what is the same for many messages: pinned campaigns, compiled templates, link ids. One per lane.

    A lane's streams share it, one at a time: preparing is work for the processor, which two would not do faster.
    """

    def __init__(self, engine: Engine, workspace: Workspace) -> None:
        self._engine = engine
        self._workspace = workspace
        self._lock = threading.Lock()
        self._signer: Signer = workspace.signer()
        self._links = LinkRegistry(engine)
        self._versions: OrderedDict[int, PinnedCampaign] = OrderedDict()
        self._tariffs = tariffs(workspace)
        self._policies: dict[int, RetryPolicy] = {}
        self._steps: OrderedDict[tuple[int, int, str], MailStep | SmsStep] = OrderedDict()
        with reading(engine) as connection:
            self._installation = installation(connection)
        self.gate = Gate(engine, workspace, self._installation)

    def prepare(self, claim: Claim, *, now: datetime, hold: Callable[[int | None], None]) -> Prepared:
        """Sort a claimed chunk and compose what is to be sent; takes only from rates and writes only new links.

        `hold` is told the position of each message before it is composed, and None at the end.
        """
        with self._lock:
            try:
                return self._prepared(claim, now, hold)
            finally:
                hold(None)

    def _prepared(self, claim: Claim, now: datetime, hold: Callable[[int | None], None]) -> Prepared:
        prepared = Prepared()
        # Before the chunk's own are looked up: one chunk may have messages of any number of versions.
        while len(self._versions) > _KEPT_STEPS:
            self._versions.popitem(last=False)
        with reading(self._engine) as connection:
            by_index(connection)
            for message in claim.messages:
                if message.version_id not in self._versions:
                    self._version(connection, message.version_id)
            specs = {message.run_id: self._versions[message.version_id].spec for message in claim.messages}
            recipients = clear(connection, claim.messages, specs, now=now)
            sendable = self._sort(claim, recipients, prepared)
            contexts = self._contexts(connection, sendable, recipients, now)
        found = [message for _, message in sendable]
        waits = self.gate.admit(
            claim.lane,
            found,
            spec_of=self.spec_of,
            address_of=lambda one: recipients[one].person[_EMAIL] or "",
            now=now,
        )
        prepared.postponed |= waits
        leaving = [one for one in sendable if one[1].id not in waits] if waits else sendable
        self._compose_all(claim.lane, leaving, contexts, prepared, now, hold)
        return prepared

    def hold_within_budgets(self, connection: Connection, claim: Claim, prepared: Prepared, *, now: datetime) -> bool:
        """Take the chunk's share of quotas and budgets, and postpone who is over; False where there are none.

        Call it in the transaction that marks the chunk `sending`, before that.
        """
        over = self.gate.reserve(connection, claim, prepared.go, spec_of=self.spec_of, now=now)
        prepared.hold_back(over or {})
        return over is not None

    def _sort(
        self, claim: Claim, recipients: Mapping[int, Recipient], prepared: Prepared
    ) -> list[tuple[int, ClaimedMessage]]:
        sendable = []
        for index, message in enumerate(claim.messages):
            recipient = recipients.get(message.id)
            if recipient is None:
                continue  # Somebody has taken the chunk over meanwhile.
            verdict = recipient.verdict
            if isinstance(verdict, Go):
                sendable.append((index, message))
            elif isinstance(verdict, Skip):
                prepared.skipped[message.id] = verdict.reason
            else:
                prepared.postponed[message.id] = verdict.until
        return sendable

    def _contexts(
        self,
        connection: Connection,
        sendable: list[tuple[int, ClaimedMessage]],
        recipients: Mapping[int, Recipient],
        now: datetime,
    ) -> dict[int, dict[str, Any]]:
        """Return what templates may know, by message; a look-up is made only where some template may ask for it."""
        settings = self._workspace.settings
        files = [self._versions[version].files for version in {message.version_id for _, message in sendable}]
        wanted = {name for name in LOOKED_UP if any(name in text for some in files for text in some.values())}
        made = contexts_of(
            connection,
            [recipients[message.id].person for _, message in sendable],
            wanted=wanted,
            now=now,
            currency=settings.currency,
            zone=ZoneInfo(settings.timezone),
        )
        return {message.id: context for (_, message), context in zip(sendable, made, strict=True)}

    def spec_of(self, version_id: int) -> CampaignSpec:
        """Return the pinned spec of a version that a prepared chunk has."""
        pinned = self._versions.get(version_id)
        if pinned is None:  # Another stream's chunk has taken its place meanwhile.
            with reading(self._engine) as connection:
                return load_version(connection, version_id).spec
        return pinned.spec

    def _compose_all(
        self,
        lane: str,
        leaving: list[tuple[int, ClaimedMessage]],
        contexts: Mapping[int, dict[str, Any]],
        prepared: Prepared,
        now: datetime,
        hold: Callable[[int], None],
    ) -> None:
        """Compose what is to be sent, as much as memory is meant to hold. One that cannot be harms no other."""
        tariff, links, tokens, go = self._tariffs[lane], self._links, self._signer.address_token, prepared.go
        one_price = None if tariff.by_prefix else tariff.default
        own_language = self._workspace.settings.language
        ready: dict[tuple[int, int, str], _Ready | None] = {}
        for position, (index, message) in enumerate(leaving, start=1):
            hold(index)
            context = contexts[message.id]
            contact = context["contact"]
            key = (message.version_id, message.step, contact.get("language") or own_language)
            if key not in ready:
                ready[key] = self._ready(*key)
            known = ready[key]
            if known is None:
                prepared.postponed[message.id] = now + _OPERATOR_WAIT
                continue
            step, retry = known
            content: ComposedMail | ComposedSms
            try:
                if isinstance(step, MailStep):
                    content = step.compose(
                        message_id=message.id, address=contact["email"], context=context, date=now, links=links
                    )
                    ref, price = content.ref, one_price
                    prepared.octets += len(content.data)
                else:
                    content = step.compose(
                        message_id=message.id, address=contact["phone"], context=context, links=links
                    )
                    ref, price = tokens(message.id), tariff.micro(content.address)
            except CarillonError as error:
                prepared.failed[message.id] = (FailReason.TEMPLATE_ERROR, str(error))
                continue
            except DBAPIError:
                raise  # The database's trouble is no message's: the chunk is given up, and taken again at once.
            except Exception:
                # Ours to mend, not the contact's: the message waits and the log says why.
                log.exception("message_not_composed", message=message.id)
                prepared.postponed[message.id] = now + _OPERATOR_WAIT
                continue
            parcel = Parcel(index=index, message_id=message.id, ref=ref, content=content)
            go.append(Passenger(parcel, message.planned_ms, message.attempts, price, retry))
            if prepared.octets >= MOST_OCTETS:
                # The others are due again at once, and before what was planned later.
                prepared.postponed |= {other.id: from_ms(other.planned_ms) for _, other in leaving[position:]}
                break

    def _ready(self, version_id: int, number: int, language: str) -> _Ready | None:
        """Return the compiled step, or None where it cannot be made: a wrong setting is nobody's message's fault."""
        pinned = self._versions[version_id]
        try:
            return _Ready(self._step(pinned, number, language), self._retry_of(pinned))
        except DBAPIError:
            raise
        except Exception:
            log.exception("step_not_ready", campaign=pinned.name, step=number)
            return None

    def _retry_of(self, pinned: PinnedCampaign) -> RetryPolicy:
        policy = self._policies.get(pinned.version_id)
        if policy is None:
            policy = self._policies[pinned.version_id] = retry_policy(self._workspace.settings, pinned.spec.limits)
        return policy

    def _step(self, pinned: PinnedCampaign, number: int, language: str) -> MailStep | SmsStep:
        key = (pinned.version_id, number, language)
        step = self._steps.get(key)
        if step is None:
            step = prepare_step(self._workspace, pinned, number, language, self._signer, self._installation)
            self._steps[key] = step
            if len(self._steps) > _KEPT_STEPS:
                self._steps.popitem(last=False)
        return step

    def _version(self, connection: Connection, version_id: int) -> PinnedCampaign:
        pinned = self._versions.get(version_id)
        if pinned is None:
            pinned = self._versions[version_id] = load_version(connection, version_id)
        return pinned


def tariffs(workspace: Workspace) -> dict[str, Tariff]:
    """Return what one message or SMS part costs by gateway."""
    return {name: tariff_of(gateway) for name, gateway in workspace.settings.gateways.items()}
