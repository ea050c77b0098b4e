"""What the texts of a planned run come to: parts, encodings, money by country, and what makes them dear.

Every number is counted; texts are rendered for up to 500 recipients of a step, evenly spread over all of them, and what
those take is what one text takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from campaigns.numbers import country_of
from campaigns.rehearsal import Rehearsed
from campaigns.rendering import Renderer
from campaigns.sms_checks import dear_in
from campaigns.versions import PinnedCampaign
from kernel.settings import Settings, Workspace
from kernel.sms_terms import SmsTerms, tariff_of
from templates.sms import ComposedSms
from templates.sms_letters import DearLetter, plain, plainly
from templates.sms_parts import count_parts, in_gsm7

RENDERED = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What texts to one country come to; `cost` in major units, None where some of them have no price."""

    messages: int
    parts: int
    cost: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dear:
    """A letter that makes texts UCS-2. `path` is the template's; "" where it comes with the recipients' data.

    `texts` is how many of the rendered texts hold it; `instead` what to write, None where nothing says the same.
    """

    path: str
    letter: str
    shown: str
    name: str
    line: int
    column: int
    instead: str | None
    remedy: str
    texts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextForecast:
    """One SMS step. `exact` where every text was rendered; `parts_if_plain` with every letter replaced that can be."""

    step: int
    gateway: str
    messages: int
    rendered: int
    exact: bool
    parts: int
    parts_if_plain: int
    encodings: dict[str, int] = field(default_factory=dict)
    countries: dict[str, Bill] = field(default_factory=dict)
    dear: tuple[Dear, ...] = ()


def forecast_texts(
    workspace: Workspace, pinned: PinnedCampaign, rehearsed: Rehearsed, renderer: Renderer
) -> list[TextForecast]:
    """Return a forecast of each step that texts somebody, in the order of the steps."""
    return [
        _forecast(workspace, pinned, position, people, renderer)
        for position, people in sorted(rehearsed.texting.items())
    ]


def _forecast(
    workspace: Workspace,
    pinned: PinnedCampaign,
    position: int,
    people: Sequence[tuple[int, str]],
    renderer: Renderer,
) -> TextForecast:
    step = pinned.spec.steps[position - 1]
    terms, lane = workspace.settings.sms_terms(step.gateway), step.gateway or ""
    made = list(renderer.texts(position, [contact for contact, _ in _spread(people, RENDERED)]))
    parts_each = Decimal(sum(text.parts for text in made)) / len(made) if made else Decimal(1)
    plain_each = Decimal(sum(_parts_if_plain(text, terms) for text in made)) / len(made) if made else Decimal(1)
    encodings = Counter(text.encoding.value for text in made)
    return TextForecast(
        step=position,
        gateway=lane,
        messages=len(people),
        rendered=len(made),
        exact=len(made) == len(people),
        parts=_up(parts_each * len(people)),
        parts_if_plain=_up(plain_each * len(people)),
        encodings={name: round(Decimal(count) * len(people) / len(made)) for name, count in sorted(encodings.items())},
        countries=_bills(people, parts_each, _Fare(workspace.settings, lane)),
        dear=tuple(_dear(pinned, step.template, terms, made)),
    )


def _spread(people: Sequence[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    """Return up to so many people, evenly spread over all."""
    if len(people) <= most:
        return list(people)
    return [people[index * len(people) // most] for index in range(most)]


def _parts_if_plain(text: ComposedSms, terms: SmsTerms) -> int:
    if terms.counting == "cn" or not terms.own_words:
        return text.parts
    return count_parts(plainly(terms.signature + text.text))


class _Fare:
    """What one part costs by a gateway, or by a route: the mean of its gateways, by their weights."""

    def __init__(self, settings: Settings, way: str) -> None:
        weights = settings.routes[way].gateways if way in settings.routes else {way: 1}
        self._tariffs = [(tariff_of(settings.gateways.get(name)), weight) for name, weight in weights.items() if weight]
        self._sum = sum(weights.values())

    def of(self, number: str) -> Decimal | None:
        """Return the price in major units; None where a gateway that may be taken has none."""
        micros = [(tariff.micro(number), weight) for tariff, weight in self._tariffs]
        if any(micro is None for micro, _ in micros):
            return None
        return Decimal(sum((micro or 0) * weight for micro, weight in micros)).scaleb(-6) / self._sum


def _bills(people: Sequence[tuple[int, str]], parts_each: Decimal, fare: _Fare) -> dict[str, Bill]:
    """Return what each country comes to, the most texted first."""
    prices: dict[str, list[Decimal | None]] = {}
    for _, number in people:
        prices.setdefault(country_of(number), []).append(fare.of(number))
    return {
        country: Bill(
            messages=len(found),
            parts=_up(parts_each * len(found)),
            cost=None if None in found else sum(filter(None, found), Decimal(0)) * parts_each,
        )
        for country, found in sorted(prices.items(), key=lambda item: (-len(item[1]), item[0]))
    }


def _dear(pinned: PinnedCampaign, template: str, terms: SmsTerms, made: Sequence[ComposedSms]) -> Iterator[Dear]:
    if terms.counting == "cn" or not terms.own_words:
        return
    holding = Counter(letter for text in made for letter in set(text.text) if not in_gsm7(letter))
    own = {path: source for path, source in pinned.files.items() if _belongs(path, template)}
    in_templates = dear_in(own, terms)
    for path, letters in in_templates.items():
        for one in letters:
            yield _dear_letter(f"templates/{path}", one, holding.pop(one.letter, 0))
    written = {letter for source in own.values() for letter in source}
    for letter, texts in holding.most_common(10):
        if letter not in written and plain(letter) is not None:
            yield _dear_letter("", DearLetter(letter=letter, line=0, column=0), texts)


def _dear_letter(path: str, one: DearLetter, texts: int) -> Dear:
    return Dear(
        path=path,
        letter=one.letter,
        shown=one.shown,
        name=one.name,
        line=one.line,
        column=one.column,
        instead=one.instead,
        remedy=one.remedy if path else f"{one.remedy}, by a filter of the template or in your source",
        texts=texts,
    )


def _belongs(path: str, template: str) -> bool:
    return path == f"{template}.txt" or (path.startswith(f"{template}.") and path.endswith(".txt"))


def _up(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_CEILING))
