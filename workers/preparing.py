"""From a claimed chunk to parcels ready to leave: eligibility, rates, rendering. Everything here is harmless."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection, Engine

from campaigns.clearing import Recipient, clear
from campaigns.judging import Go, Skip
from campaigns.rates import give_back, take
from campaigns.rendering import prepare_step
from campaigns.versions import PinnedCampaign, load_version
from kernel.clock import from_ms
from kernel.errors import CarillonError
from kernel.fields import duration, rate
from kernel.quantities import Rate
from kernel.settings import Limits, Settings, Workspace
from kernel.signing import Signer
from kernel.vocabulary import FailReason, SkipReason
from store.engine import reading, writing
from store.ledger import Claim, ClaimedMessage
from store.links import LinkRegistry
from store.schema import installation
from templates.context import LOOKED_UP, contexts_of
from templates.mail import ComposedMail, MailStep
from templates.sms import ComposedSms, SmsStep
from workers.channels.port import Parcel
from workers.flight import Passenger, RetryPolicy

log = structlog.get_logger(__name__)

_KEPT_STEPS = 64
_LONGEST_RETRY = timedelta(hours=4)
_OPERATOR_WAIT = timedelta(minutes=5)


@dataclass(slots=True)
class Prepared:
    """A chunk sorted by what is to become of it. Keys are message ids."""

    go: list[Passenger] = field(default_factory=list)
    skipped: dict[int, SkipReason] = field(default_factory=dict)
    failed: dict[int, tuple[FailReason, str]] = field(default_factory=dict)
    postponed: dict[int, datetime] = field(default_factory=dict)
    broken: set[tuple[int, int, str]] = field(default_factory=set)


class Preparer:
    """Keeps what is the same for many messages: pinned campaigns, compiled templates, link ids. One per process."""

    def __init__(self, engine: Engine, workspace: Workspace) -> None:
        self._engine = engine
        self._workspace = workspace
        self._signer: Signer = workspace.signer()
        self._links = LinkRegistry(engine)
        self._versions: OrderedDict[int, PinnedCampaign] = OrderedDict()
        self._prices = prices_micro(workspace)
        self._policies: dict[int, RetryPolicy] = {}
        self._steps: OrderedDict[tuple[int, int, str], MailStep | SmsStep] = OrderedDict()
        with reading(engine) as connection:
            self._installation = installation(connection)

    def prepare(self, claim: Claim, *, now: datetime) -> Prepared:
        """Sort a claimed chunk and compose what is to be sent; writes only rate windows and new links."""
        prepared = Prepared()
        with reading(self._engine) as connection:
            for message in claim.messages:
                if message.version_id not in self._versions:
                    self._version(connection, message.version_id)
            specs = {message.run_id: self._versions[message.version_id].spec for message in claim.messages}
            recipients = clear(connection, claim.id, specs, now=now)
            sendable = self._sort(claim, recipients, prepared)
            contexts = self._contexts(connection, sendable, recipients, now)
        for index, message in self._within_rates(claim.lane, sendable, prepared, now):
            self._compose(index, message, contexts[message.id], prepared, claim.lane, now)
        return prepared

    def _sort(
        self, claim: Claim, recipients: Mapping[int, Recipient], prepared: Prepared
    ) -> list[tuple[int, ClaimedMessage]]:
        sendable = []
        for index, message in enumerate(claim.messages):
            verdict = recipients[message.id].verdict
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

    def _within_rates(
        self, lane: str, sendable: list[tuple[int, ClaimedMessage]], prepared: Prepared, now: datetime
    ) -> list[tuple[int, ClaimedMessage]]:
        """Hold back what is over the campaign's or the gateway's rate until its next window."""
        by_campaign: dict[int, list[tuple[int, ClaimedMessage]]] = {}
        for item in sendable:
            by_campaign.setdefault(item[1].campaign_id, []).append(item)
        kept: list[tuple[int, ClaimedMessage]] = []
        for campaign_id, group in by_campaign.items():
            kept += self._granted(f"campaign:{campaign_id}", self._rate_of(group), group, prepared, now)
        gateway = self._workspace.settings.gateways.get(lane)
        granted = self._granted(f"lane:{lane}", rate(gateway.rate) if gateway else None, kept, prepared, now)
        self._return_unused(kept[len(granted) :], now)
        return granted

    def _rate_of(self, group: list[tuple[int, ClaimedMessage]]) -> Rate | None:
        return rate(self._versions[group[0][1].version_id].spec.rate)

    def _return_unused(self, refused: list[tuple[int, ClaimedMessage]], now: datetime) -> None:
        """Give campaigns back what they were allowed and the gateway then was not."""
        by_campaign: dict[int, list[tuple[int, ClaimedMessage]]] = {}
        for item in refused:
            by_campaign.setdefault(item[1].campaign_id, []).append(item)
        for campaign_id, group in by_campaign.items():
            limit = self._rate_of(group)
            if limit is not None:
                with writing(self._engine) as connection:
                    give_back(connection, f"campaign:{campaign_id}", limit, len(group), now=now)

    def _granted(
        self, key: str, limit: Rate | None, group: list[tuple[int, ClaimedMessage]], prepared: Prepared, now: datetime
    ) -> list[tuple[int, ClaimedMessage]]:
        if limit is None or not group:
            return group
        with writing(self._engine) as connection:
            grant = take(connection, key, limit, len(group), now=now)
        for _, message in group[grant.granted :]:
            prepared.postponed[message.id] = grant.next_at
        return group[: grant.granted]

    def _compose(
        self,
        index: int,
        message: ClaimedMessage,
        context: dict[str, Any],
        prepared: Prepared,
        lane: str,
        now: datetime,
    ) -> None:
        step = self._ready_step(message, context, prepared)
        if step is None:
            prepared.postponed[message.id] = now + _OPERATOR_WAIT
            return
        try:
            parcel = self._parcel(index, message, step, context, now)
        except CarillonError as error:
            prepared.failed[message.id] = (FailReason.TEMPLATE_ERROR, str(error))
            return
        except Exception:
            # Ours to mend, not the contact's: the message waits and the log says why.
            log.exception("message_not_composed", message=message.id)
            prepared.postponed[message.id] = now + _OPERATOR_WAIT
            return
        pinned = self._versions[message.version_id]
        prepared.go.append(
            Passenger(
                parcel=parcel,
                planned_for=from_ms(message.planned_ms),
                attempts=message.attempts,
                price_micro=self._prices[lane],
                retry=self._retry_of(pinned),
            )
        )

    def _retry_of(self, pinned: PinnedCampaign) -> RetryPolicy:
        policy = self._policies.get(pinned.version_id)
        if policy is None:
            policy = self._policies[pinned.version_id] = retry_policy(self._workspace.settings, pinned.spec.limits)
        return policy

    def _ready_step(
        self, message: ClaimedMessage, context: dict[str, Any], prepared: Prepared
    ) -> MailStep | SmsStep | None:
        """Return the compiled step, or None where it cannot be made: a wrong setting is nobody's message's fault."""
        language = context["contact"].get("language") or self._workspace.settings.language
        key = (message.version_id, message.step, language)
        if key in prepared.broken:
            return None
        try:
            return self._step(message, language)
        except Exception:
            log.exception("step_not_ready", campaign=self._versions[message.version_id].name, step=message.step)
            prepared.broken.add(key)
            return None

    def _parcel(
        self, index: int, message: ClaimedMessage, step: MailStep | SmsStep, context: dict[str, Any], now: datetime
    ) -> Parcel:
        contact = context["contact"]
        content: ComposedMail | ComposedSms
        if isinstance(step, MailStep):
            content = step.compose(
                message_id=message.id, address=contact["email"], context=context, date=now, links=self._links
            )
            # The return path holds the reference already; signing it again would cost more than reading it there.
            ref = content.envelope_from.partition("@")[0].partition("+")[2]
        else:
            content = step.compose(message_id=message.id, address=contact["phone"], context=context, links=self._links)
            ref = self._signer.address_token(message.id)
        return Parcel(index=index, message_id=message.id, ref=ref, content=content)

    def _step(self, message: ClaimedMessage, language: str) -> MailStep | SmsStep:
        key = (message.version_id, message.step, language)
        step = self._steps.get(key)
        if step is None:
            pinned = self._versions[message.version_id]
            step = prepare_step(self._workspace, pinned, message.step, language, self._signer, self._installation)
            self._steps[key] = step
            if len(self._steps) > _KEPT_STEPS:
                self._steps.popitem(last=False)
        return step

    def _version(self, connection: Connection, version_id: int) -> PinnedCampaign:
        pinned = self._versions.get(version_id)
        if pinned is None:
            pinned = self._versions[version_id] = load_version(connection, version_id)
            if len(self._versions) > _KEPT_STEPS:
                self._versions.popitem(last=False)
        return pinned


def retry_policy(settings: Settings, limits: Limits | None) -> RetryPolicy:
    """Return when a campaign's deferred messages are tried again; its own limits go before the workspace's."""
    limits = limits or settings.limits
    return RetryPolicy(
        first=duration(limits.first_retry),
        longest=_LONGEST_RETRY,
        attempts=limits.max_attempts,
        max_age=duration(limits.max_age),
    )


def prices_micro(workspace: Workspace) -> dict[str, int | None]:
    """Return what one message or SMS part costs by gateway, in millionths of the currency; None without a price."""
    prices = {name: getattr(gateway, "price", None) for name, gateway in workspace.settings.gateways.items()}
    return {name: int(Decimal(price).scaleb(6)) if price else None for name, price in prices.items()}
