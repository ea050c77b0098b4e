"""What a plan says of the texts of a run, now that it is known whom they go to and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from campaigns.sms_forecast import TextForecast
from campaigns.sms_law import about_hours, about_text
from campaigns.versions import PinnedCampaign
from kernel.settings import Workspace


def about_texts(workspace: Workspace, pinned: PinnedCampaign, texts: Sequence[TextForecast]) -> Iterator[str]:
    """Yield warnings: what dear letters cost, prices that miss, and what the countries texted ask for."""
    for text in texts:
        yield from _about_money(text)
        yield from _about_countries(workspace, pinned, text)


def _about_money(text: TextForecast) -> Iterator[str]:
    where = f"step {text.step}"
    if text.parts_if_plain < text.parts:
        letters = " ".join(dict.fromkeys(one.letter for one in text.dear if one.letter.isprintable()))
        yield (
            f"{where}: letters outside the GSM alphabet ({letters}) make {text.parts:,} parts of what could be "
            f"{text.parts_if_plain:,}"
        )
    unpriced = [country for country, bill in text.countries.items() if bill.cost is None]
    priced = any(bill.cost is not None for bill in text.countries.values())
    if unpriced and priced:
        yield f"{where}: gateway {text.gateway} has no price for {', '.join(unpriced)}; they are not in the cost"


def _about_countries(workspace: Workspace, pinned: PinnedCampaign, text: TextForecast) -> Iterator[str]:
    step = pinned.spec.steps[text.step - 1]
    terms = workspace.settings.sms_terms(step.gateway)
    own = pinned.files.get(f"{step.template}.txt", "")
    for country, bill in text.countries.items():
        if country == terms.country:
            continue  # `validate` has said so, with line and column.
        about_words = about_text(country, terms, own) if terms.own_words else ()
        for remark in (*about_hours(country, pinned.spec.window_of(text.step)), *about_words):
            yield f"step {text.step}, {bill.messages:,} to {country}: {remark.message} ({remark.hint})"
