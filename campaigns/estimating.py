"""What a planned run would cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from campaigns.rehearsal import Rehearsed
from campaigns.rendering import Renderer
from campaigns.versions import PinnedCampaign
from kernel.errors import CarillonError
from kernel.quantities import to_minor
from kernel.settings import Settings, Workspace
from kernel.vocabulary import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`cost` by currency in minor units; `sms_parts` from the texts of a few recipients, rounded up."""

    cost: dict[str, int] = field(default_factory=dict)
    sms_parts: int = 0


def estimate(workspace: Workspace, pinned: PinnedCampaign, rehearsed: Rehearsed, renderer: Renderer) -> Estimate:
    """Return what the run would cost: the campaign's own words, and the gateways' prices for each SMS part."""
    words = pinned.spec.cost
    texts = rehearsed.messages[Channel.SMS]
    parts_each = _parts_each(rehearsed, renderer)
    total = Decimal(words.fixed)
    total += Decimal(words.per_email) * rehearsed.messages[Channel.EMAIL] + Decimal(words.per_sms) * texts
    for lane, count in rehearsed.lanes.items():
        total += _price(workspace.settings, lane) * count * parts_each
    currency = workspace.settings.currency
    parts = (parts_each * texts).to_integral_value(ROUND_CEILING)
    return Estimate(cost={currency: to_minor(total, currency)}, sms_parts=int(parts))


def _price(settings: Settings, lane: str) -> Decimal:
    """Return the price of a part by a gateway, or by a route: the mean, by its weights."""
    weights = settings.routes[lane].gateways if lane in settings.routes else {lane: 1}
    prices = {name: Decimal(getattr(settings.gateways.get(name), "price", None) or 0) for name in weights}
    return sum((prices[name] * weight for name, weight in weights.items()), Decimal(0)) / sum(weights.values())


def _parts_each(rehearsed: Rehearsed, renderer: Renderer) -> Decimal:
    """Return the mean number of parts of one SMS; 1 where none can be rendered: the plan says so elsewhere."""
    parts: list[int] = []
    for place in rehearsed.texts:
        try:
            parts.append(renderer.render(*place).parts)
        except CarillonError:
            continue
    return Decimal(sum(parts)) / len(parts) if parts else Decimal(1)
