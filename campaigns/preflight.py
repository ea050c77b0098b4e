"""The e-mails of a plan looked at before anybody gets one: against odd people of the audience, and made-up ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Select, exists, func, select

from campaigns.audience import audience
from campaigns.compiling import languages_of
from campaigns.rendering import prepare_step
from campaigns.versions import PinnedCampaign
from kernel.errors import CarillonError
from kernel.settings import Workspace
from kernel.vocabulary import Channel, Subject
from store.schema import installation
from store.tables import accounts, contacts, profiles
from templates.context import load_contexts
from templates.files import EmailTemplate, email_template
from templates.lint import GMAIL_CLIPS_AT, Advice, NotedLinks, bodies, message_advice, source_advice, undefined_beside
from templates.mail import ComposedMail, MailStep
from templates.mail_law import LAWS, breaches
from templates.odd_people import anybody, odd_people
from templates.problems import SHOWN_UNDER, TemplateProblem

_EACH = 3
"""How many people are looked at for each thing that may be odd about them."""
_LOOKED_THROUGH = 50_000
"""People of the audience among whom odd ones are looked for; a plan for a million shall not wait for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing worth knowing about an e-mail step before it leaves.

    `fails` marks what keeps a message from leaving. `people` are ids of contacts of the audience, or what is odd about
    made-up people; none where it is about the template.
    """

    step: int
    fails: bool
    message: str
    people: tuple[str, ...] = ()


def preflight(connection: Connection, workspace: Workspace, pinned: PinnedCampaign, *, now: datetime) -> list[Finding]:
    """Return what is worth mending in the e-mail steps of a plan; what fails first, each thing once.

    Args:
        connection: The one that holds the temporary tables of the audience.
        workspace: Its settings.
        pinned: The campaign.
        now: When the run fires.
    """
    steps = [number for number, step in enumerate(pinned.spec.steps, 1) if step.channel is Channel.EMAIL]
    if not steps:
        return []
    crowd = _crowd(connection, workspace, now)
    name = installation(connection)
    findings: list[Finding] = []
    for number in steps:
        look = _Look(workspace, pinned, number, name, now)
        look.at(crowd)
        findings += look.findings()
    return findings


# --- who is looked at --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Contexts of people of the audience by external id, and one person of each country with a law of its own."""

    people: dict[str, dict[str, Any]]
    by_country: dict[str, str]


def _crowd(connection: Connection, workspace: Workspace, now: datetime) -> _Crowd:
    ids: dict[int, None] = {}
    for query in _odd_rows():
        ids |= dict.fromkeys(connection.execute(query).scalars())
    countries = {}
    for country in LAWS:
        found = connection.execute(_of_audience().where(accounts.c.country == country).limit(1)).scalar()
        if found is not None:
            countries[country] = found
            ids[found] = None
    settings = workspace.settings
    contexts = load_contexts(
        connection, list(ids), now=now, currency=settings.currency, zone=ZoneInfo(settings.timezone)
    )
    known = select(contacts.c.id, contacts.c.external_id).where(contacts.c.id.in_(list(ids)))
    names = {row.id: row.external_id for row in connection.execute(known)}
    return _Crowd(
        people={names[contact_id]: contexts[contact_id] for contact_id in ids if contact_id in contexts},
        by_country={country: names[contact_id] for country, contact_id in countries.items()},
    )


def _of_audience() -> Select[Any]:
    some = select(audience.c.contact_id).where(audience.c.skip_reason.is_(None)).limit(_LOOKED_THROUGH).subquery()
    return (
        select(some.c.contact_id)
        .join(contacts, contacts.c.id == some.c.contact_id)
        .outerjoin(accounts, accounts.c.id == contacts.c.account_id)
    )


def _odd_rows() -> Iterator[Select[Any]]:
    """Yield a question for each thing that may be odd: a few ids each, whatever the size of the audience."""
    people = _of_audience()
    first, last, company = contacts.c.first_name, contacts.c.last_name, accounts.c.name
    scored = exists().where(
        (profiles.c.subject == Subject.ACCOUNT) & (profiles.c.subject_id == contacts.c.account_id),
        profiles.c.rfm_segment.is_not(None),
    )
    yield people.order_by(contacts.c.id).limit(_EACH)
    yield people.where(first == "").limit(_EACH)
    yield people.where(last == "").limit(_EACH)
    for column in (first, last, company):
        yield people.where(column != "").order_by(func.length(column).desc()).limit(_EACH)
        # Letters beyond Latin, and emoji, come last in every order of an alphabet that knows no language.
        yield people.where(column != "").order_by(column.desc()).limit(_EACH)
    yield people.where(contacts.c.account_id.is_(None)).limit(_EACH)
    yield people.where(~scored).limit(_EACH)
    yield people.where(contacts.c.role.is_(None)).limit(_EACH)


# --- what is found -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Look:
    """What one step makes of everybody."""

    workspace: Workspace
    pinned: PinnedCampaign
    step: int
    installation: str
    now: datetime
    failing: dict[str, dict[str, None]] = field(default_factory=dict)
    odd_failing: dict[str, dict[str, None]] = field(default_factory=dict)
    advice: dict[Advice, None] = field(default_factory=dict)
    unlawful: dict[str, dict[str, None]] = field(default_factory=dict)
    largest: tuple[int, str] = (0, "")
    _steps: dict[str, MailStep | str] = field(default_factory=dict)
    _links: NotedLinks = field(default_factory=NotedLinks)

    def at(self, crowd: _Crowd) -> None:
        """Look at the people of the audience, then at made-up ones in every language the template has."""
        settings = self.workspace.settings
        for person, context in crowd.people.items():
            mail = self._composed(person, context, self._language(context), self.failing)
            if mail is None:
                continue
            _, html = bodies(mail)
            self.largest = max(self.largest, (len(html.encode()), person))
        base = next(iter(crowd.people.values()), anybody())
        name = self.pinned.spec.steps[self.step - 1].template
        for own in languages_of(self.pinned.files, name, Channel.EMAIL):
            language = own or settings.language
            for person, context in odd_people(base).items():
                self._composed(person, context, language, self.odd_failing)
            self._advise(base, language)
        for country, person in crowd.by_country.items():
            self._judge(country, person, crowd.people[person])

    def findings(self) -> Iterator[Finding]:
        """Yield what was found, what fails first."""
        for message, people in self.failing.items():
            yield Finding(step=self.step, fails=True, message=message, people=tuple(people))
        for message, people in self.odd_failing.items():
            if message not in self.failing:
                yield Finding(step=self.step, fails=True, message=message, people=tuple(people))
        for message, people in self.unlawful.items():
            yield Finding(step=self.step, fails=False, message=message, people=tuple(people))
        for advice in self.advice:
            yield Finding(step=self.step, fails=False, message=str(advice))
        size, person = self.largest
        if size > GMAIL_CLIPS_AT and not any("Gmail hides" in advice.message for advice in self.advice):
            message = f"the HTML has up to {size:,} bytes; Gmail hides what lies beyond {GMAIL_CLIPS_AT:,}"
            yield Finding(step=self.step, fails=False, message=message, people=(person,))

    def _language(self, context: Mapping[str, Any]) -> str:
        return context["contact"].get("language") or self.workspace.settings.language

    def _composed(
        self, person: str, context: dict[str, Any], language: str, failing: dict[str, dict[str, None]]
    ) -> ComposedMail | None:
        step = self._ready(language)
        if isinstance(step, str):
            failing.setdefault(step, {})
            return None

        def compose(data: dict[str, Any]) -> ComposedMail:
            return step.compose(
                message_id=0, address="nobody@sample.invalid", context=data, date=self.now, links=self._links
            )

        try:
            return compose(context)
        except TemplateProblem as problem:
            for words in (str(problem), *undefined_beside(compose, context, problem)):
                failing.setdefault(words, {})[person] = None
            return None

    def _ready(self, language: str) -> MailStep | str:
        """Return the step in a language, or why it cannot be made."""
        if language not in self._steps:
            signer = self.workspace.signer()
            try:
                step = prepare_step(self.workspace, self.pinned, self.step, language, signer, self.installation)
                self._steps[language] = step if isinstance(step, MailStep) else "is no e-mail"
            except CarillonError as error:
                self._steps[language] = str(error)
        return self._steps[language]

    def _template(self, language: str) -> EmailTemplate:
        return email_template(self.pinned.files, self.pinned.spec.steps[self.step - 1].template, language)

    def _advise(self, context: dict[str, Any], language: str) -> None:
        template = self._template(language)
        self.advice |= dict.fromkeys(source_advice(template))
        mail = self._composed("a plain message", context, language, {})
        if mail is not None:
            base_url = self.workspace.settings.web.public_url.rstrip("/")
            targets = self._links.targets(base_url, self.workspace.signer())
            self.advice |= dict.fromkeys(message_advice(template, mail, targets))

    def _judge(self, country: str, person: str, context: dict[str, Any]) -> None:
        mail = self._composed(person, context, self._language(context), {})
        if mail is None:
            return
        text, _ = bodies(mail)
        template = self._template(self._language(context))
        for breach in breaches(country, mail.subject, text):
            self.unlawful.setdefault(f"{SHOWN_UNDER}{template.subject}: {breach}", {})[person] = None


def in_words(people: Sequence[str]) -> str:
    """Return who is meant, as "C-1, C-2 and 5 more"."""
    shown = ", ".join(people[:3])
    return f"{shown} and {len(people) - 3} more" if len(people) > 3 else shown
