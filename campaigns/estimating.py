"""What a planned run would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from campaigns.rehearsal import Rehearsed
from campaigns.sms_forecast import TextForecast
from campaigns.versions import PinnedCampaign
from kernel.quantities import to_minor
from kernel.settings import Workspace
from kernel.vocabulary import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """`cost` by currency in minor units; `sms_parts` as the forecasts of the SMS steps have it."""

    cost: dict[str, int] = field(default_factory=dict)
    sms_parts: int = 0


def estimate(
    workspace: Workspace, pinned: PinnedCampaign, rehearsed: Rehearsed, texts: Sequence[TextForecast]
) -> Estimate:
    """Return what the run would cost: the campaign's own words, and the gateways' prices for each SMS part."""
    words = pinned.spec.cost
    total = Decimal(words.fixed)
    total += Decimal(words.per_email) * rehearsed.messages[Channel.EMAIL]
    total += Decimal(words.per_sms) * rehearsed.messages[Channel.SMS]
    total += sum((bill.cost or Decimal(0) for text in texts for bill in text.countries.values()), Decimal(0))
    currency = workspace.settings.currency
    return Estimate(cost={currency: to_minor(total, currency)}, sms_parts=sum(text.parts for text in texts))
