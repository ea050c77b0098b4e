"""The gate a chunk passes: rates before it is rendered, quotas and budgets in the transaction that marks it `sending`.

Asked once a chunk. Where neither gateway nor campaign has a limit nothing is asked of Redis or the database.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from campaigns.limits import budgets_now, pause_for_budget
from campaigns.quotas import budget_of_campaign, budgets_of, quota_of
from campaigns.schema import CampaignSpec
from kernel.fields import rate
from kernel.limits import DomainLimits
from kernel.settings import Workspace
from store.allowances import Allowance, Want, reserve, settle
from store.lanes import note_wait
from store.ledger import Claim, ClaimedMessage
from workers.flight import Passenger
from workers.limits.buckets import Ask, Flow, flow_of
from workers.limits.rates import Rates
from workers.limits.redis_buckets import RedisBuckets

SpecOf = Callable[[int], CampaignSpec]
"""Returns the pinned spec of a version's id."""
_UNSETTLED_WAIT = timedelta(seconds=30)
"""Until the chunks that have taken the last of an allowance are settled, and have perhaps given something back."""
_PATIENCE_S = 0.5
"""How long a lane's thread waits for tokens; a slower gateway is looked at again with the next hint."""
_LANE_AHEAD_S = 0.1
"""Short, so that the gateway's rate holds for every second; others' buckets last from one hint to the next."""
_CROWDED_WAIT = timedelta(seconds=1)


class Gate:
    """Every limit on what may leave, as one worker process sees them."""

    def __init__(self, engine: Engine, workspace: Workspace, installation: str) -> None:
        """Take the database and the settings; `installation` keeps apart those who share a Redis."""
        url = workspace.broker_url
        shared = RedisBuckets(url, f"carillon:{installation}:rate:") if url.startswith("redis") else None
        self._settings = workspace.settings
        self._rates = Rates(engine, shared)

    def room(self, lane: str, most: int) -> int:
        """Return how many messages of a lane are worth claiming now, by its gateway's rate; takes nothing.

        Waits a moment where that is enough for some: a lane has a thread of its own.
        """
        flows = self._lane_flow(lane)
        if not flows:
            return most
        (flow,) = flows.values()
        enough = min(most, max(1.0, flow.burst / 2))
        ends = time.monotonic() + _PATIENCE_S
        while (held := self._rates.held(flows)[0]) < enough:
            wait_s = (enough - held) / flow.per_ms / 1000
            if time.monotonic() + wait_s > ends:
                break
            time.sleep(wait_s)
        return max(0, min(most, math.floor(held)))

    def admit(
        self,
        lane: str,
        found: Sequence[ClaimedMessage],
        *,
        spec_of: SpecOf,
        address_of: Callable[[int], str],
        now: datetime,
    ) -> dict[int, datetime]:
        """Return, for those that may not leave yet, when to look at them again; the others have taken their tokens."""
        lane_flow = self._lane_flow(lane)
        one_each = {message.version_id: message for message in found}
        own = {version: _campaign_flow(message, spec_of) for version, message in one_each.items()}
        domains: Mapping[str, DomainLimits] = getattr(self._settings.gateways.get(lane), "domains", {})
        if not (lane_flow or domains or any(own.values())):
            return {}
        flows = dict(lane_flow)
        groups: dict[tuple[str, ...], list[int]] = {}
        waits: dict[int, datetime] = {}
        crowds: Counter[str] = Counter()
        known: dict[tuple[int, str], tuple[str, ...]] = {}
        for message in found:
            domain = address_of(message.id).rpartition("@")[2].lower() if domains else ""
            if domains:
                crowds[domain] += 1
                if crowds[domain] > self._crowd(lane, domain):
                    waits[message.id] = now + _CROWDED_WAIT
                    continue
            keys = known.get((message.version_id, domain))
            if keys is None:
                named = lane_flow | own[message.version_id] | self._domain_flow(lane, domain)
                flows |= named
                keys = known[message.version_id, domain] = tuple(named)
            if keys:
                groups.setdefault(keys, []).append(message.id)
        return waits | self._turns(flows, groups, now) if groups else waits

    def _turns(
        self, flows: dict[str, Flow], groups: dict[tuple[str, ...], list[int]], now: datetime
    ) -> dict[int, datetime]:
        position = {key: at for at, key in enumerate(flows)}
        asks = [Ask(count=len(ids), buckets=tuple(position[key] for key in keys)) for keys, ids in groups.items()]
        waits: dict[int, datetime] = {}
        for ids, turn in zip(groups.values(), self._rates.take(flows, asks), strict=True):
            for number, message_id in enumerate(ids[turn.granted :]):
                waits[message_id] = now + timedelta(milliseconds=turn.wait_ms + number * turn.step_ms)
        return waits

    def _domain(self, lane: str, domain: str) -> DomainLimits | None:
        domains: Mapping[str, DomainLimits] = getattr(self._settings.gateways.get(lane), "domains", {})
        return domains.get(domain) or domains.get("*")

    def _crowd(self, lane: str, domain: str) -> float:
        limits = self._domain(lane, domain)
        return math.inf if limits is None or limits.concurrency is None else limits.concurrency

    def _domain_flow(self, lane: str, domain: str) -> dict[str, Flow]:
        limits = self._domain(lane, domain)
        limit = rate(limits.rate) if limits is not None else None
        return {} if limit is None else {f"domain:{lane}:{domain}": flow_of(limit)}

    def _lane_flow(self, lane: str) -> dict[str, Flow]:
        gateway = self._settings.gateways.get(lane)
        limit = rate(gateway.rate) if gateway else None
        return {} if limit is None else {f"lane:{lane}": flow_of(limit, ahead_s=_LANE_AHEAD_S)}

    # --- quotas and budgets --------------------------------------------------------------------------------

    def reserve(
        self, connection: Connection, claim: Claim, passengers: Sequence[Passenger], *, spec_of: SpecOf, now: datetime
    ) -> dict[int, datetime] | None:
        """Take the passengers' share of quotas and budgets; return, for those over, when to look at them again.

        None where there is no quota or budget, and so nothing to settle later.

        Call it in the transaction that marks the chunk `sending`, before that; `give_back` where it could not be.
        """
        limits, wants = self._wants(connection, claim, passengers, spec_of, now)
        if not limits:
            return None
        refused = reserve(connection, claim.id, wants, limits, now=now)
        campaign_of = {message.id: message.campaign_id for message in claim.messages}
        used_up = {m: refusal.allowance for m, refusal in refused.items() if not refusal.may_change}
        exhausted = {(allowance.key, campaign_of[m]): allowance for m, allowance in used_up.items()}
        for (_, campaign_id), allowance in sorted(exhausted.items()):
            if allowance.renews_at is None:
                pause_for_budget(connection, campaign_id, allowance.reason, now=now)
            else:
                note_wait(connection, claim.lane, until=allowance.renews_at, reason=allowance.reason)
        # A paused campaign's messages are not claimed, however long they are due.
        waits = {message_id: allowance.renews_at or now for message_id, allowance in used_up.items()}
        return waits | {m: now + _UNSETTLED_WAIT for m, refusal in refused.items() if refusal.may_change}

    def give_back(self, connection: Connection, claim_id: int, passengers: Sequence[Passenger]) -> None:
        """Give back what was just taken for a chunk that could not be marked `sending`: its lease was over."""
        settle(connection, claim_id, {passenger.parcel.message_id: False for passenger in passengers})

    def _wants(
        self, connection: Connection, claim: Claim, passengers: Sequence[Passenger], spec_of: SpecOf, now: datetime
    ) -> tuple[dict[str, Allowance], list[Want]]:
        quota = quota_of(self._settings, claim.lane, now)
        budgets = budgets_of(self._settings, claim.lane, now)
        versions = {message.version_id: message.campaign_id for message in claim.messages}
        with_budget = {campaign for version, campaign in versions.items() if spec_of(version).budget is not None}
        if quota is None and not budgets and not with_budget:
            return {}, []
        by_id = {message.id: message for message in claim.messages}
        current = budgets_now(connection, with_budget)
        limits: dict[str, Allowance] = {one.key: one for one in budgets}
        if quota is not None:
            limits[quota.key] = quota
        wants = []
        for passenger in passengers:
            message = by_id[passenger.parcel.message_id]
            units: dict[str, int] = {} if quota is None else {quota.key: 1}
            cost = passenger.cost_micro
            if cost:
                of_campaign = current.get(message.campaign_id)
                money = list(budgets)
                if of_campaign is not None:
                    own = budget_of_campaign(self._settings, of_campaign, message.campaign_id, message.run_id, now)
                    limits[own.key] = own
                    money.append(own)
                units |= {one.key: cost for one in money}
            wants.append(Want(message_id=message.id, units=units))
        return limits, wants


def _campaign_flow(message: ClaimedMessage, spec_of: SpecOf) -> dict[str, Flow]:
    limit = rate(spec_of(message.version_id).rate)
    return {} if limit is None else {f"campaign:{message.campaign_id}": flow_of(limit)}
