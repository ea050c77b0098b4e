"""What a campaign file's shape cannot say: that what it names exists, and that its parts agree.

The checks read the raw data, tolerantly, so that they speak up together with those of the shape.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from email_validator import EmailNotValidError, validate_email

from campaigns.calendar import Window, clock_of, fire_times, next_fire_time
from campaigns.compiling import check_template
from campaigns.schema import RECIPIENT, CampaignSpec, parse_at
from campaigns.sms_checks import about_sms
from kernel.documents import Document, did_you_mean
from kernel.errors import InputError, Problem
from kernel.quantities import minor_exponent, parse_duration
from kernel.settings import Workspace
from kernel.strict_yaml import Location
from kernel.vocabulary import Channel
from templates.files import template_files, template_names

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class Check:
    """The cross-checks of one file. After `problems`, `files` holds the templates it uses, by path."""

    def __init__(
        self,
        document: Document,
        name: str,
        workspace: Workspace,
        *,
        segments: Collection[str],
    ) -> None:
        self.document = document
        self.name = name
        self.workspace = workspace
        self.segments = segments
        self.files: dict[str, str] = {}
        self._templates = workspace.root / "templates"

    def problems(self) -> list[Problem]:
        """Return everything found, in no particular order."""
        if not isinstance(self.document.data, dict):
            return []
        parts = (self._name, self._audience, self._schedule, self._steps, self._goal, self._report)
        return [problem for part in parts for problem in part()]

    def _get(self, *place: str | int) -> Any:
        value = self.document.data
        for step in place:
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and isinstance(step, int) and step < len(value):
                value = value[step]
            else:
                return None
        return value

    def _texts(self, *place: str | int) -> Iterator[tuple[Location, str]]:
        value = self._get(*place)
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, list):
            yield from (((*place, index), item) for index, item in enumerate(value) if isinstance(item, str))

    def _exactly_one(self, place: Location, keys: tuple[str, ...], why: str) -> Iterator[Problem]:
        part = self._get(*place)
        if not isinstance(part, dict):
            return
        given = [key for key in keys if key in part]
        wanted = ", ".join(keys[:-1]) + f" or {keys[-1]}"
        if not given:
            yield self.document.problem(place, f"{wanted} is missing", why)
        elif len(given) > 1:
            yield self.document.problem(
                (*place, given[1]), f"{' and '.join(given)} exclude each other", f"keep one of {wanted}"
            )

    def _name(self) -> Iterator[Problem]:
        if not _NAME.fullmatch(self.name):
            yield self.document.problem(
                (),
                f"the file's name {self.name!r} is no campaign name",
                "use small letters, digits, - and _, starting with a letter",
            )

    def _audience(self) -> Iterator[Problem]:
        chosen = {name for _, name in self._texts("audience", "segment")}
        for key in ("segment", "exclude"):
            for place, name in self._texts("audience", key):
                if name not in self.segments:
                    hint = did_you_mean(name, self.segments) or f"make segments/{name}.yaml"
                    yield self.document.problem(place, f"unknown segment {name!r}", hint)
                elif key == "exclude" and name in chosen:
                    yield self.document.problem(
                        place, f"segment {name!r} is both chosen and excluded", "drop one of the two"
                    )
        yield from self._repeated("audience", "roles")

    def _repeated(self, *place: str) -> Iterator[Problem]:
        seen: set[str] = set()
        for where, text in self._texts(*place):
            if text in seen:
                yield self.document.problem(where, f"{text!r} stands here twice", "keep one")
            seen.add(text)

    def _schedule(self) -> Iterator[Problem]:
        yield from self._exactly_one(("schedule",), ("at", "cron"), "once at a time, or again and again by cron")
        if self._get("schedule", "cron") is None:
            for key in ("from", "until"):
                if self._get("schedule", key) is not None:
                    yield self.document.problem(
                        ("schedule", key), f"{key} needs cron", "it bounds a schedule that repeats"
                    )
        first, last = self._get("schedule", "from"), self._get("schedule", "until")
        if isinstance(first, str) and isinstance(last, str) and first > last:
            yield self.document.problem(("schedule", "until"), f"until {last} lies before from {first}", "swap them")

    def _steps(self) -> Iterator[Problem]:
        steps = self._get("steps")
        for index, step in enumerate(steps if isinstance(steps, list) else []):
            if isinstance(step, dict):
                yield from self._step(index, step)

    def _step(self, index: int, step: Mapping[str, Any]) -> Iterator[Problem]:
        yield from self._exactly_one(("steps", index), ("email", "sms"), "name the template, as in `email: winback`")
        channel = Channel.EMAIL if "email" in step else Channel.SMS
        if channel not in step:
            return
        yield from self._template(index, channel)
        yield from self._gateway(index, channel)
        if channel is Channel.EMAIL:
            yield from self._sender(index)
        elif "sender" in step:
            yield self.document.problem(
                ("steps", index, "sender"), "sender is for e-mail", "a gateway names the SMS sender"
            )
        yield from self._conditions(index)

    def _template(self, index: int, channel: Channel) -> Iterator[Problem]:
        name = self._get("steps", index, channel.value)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return
        try:
            files = template_files(self._templates, name, channel)
            check_template(files, name, channel)
            self.files.update(files)
        except InputError as error:
            known = template_names(self._templates, channel)
            if name in known:
                yield from error.problems
                return
            wanted = f"templates/{name}/subject.txt" if channel is Channel.EMAIL else f"templates/{name}.txt"
            hint = did_you_mean(name, known)
            yield self.document.problem(
                ("steps", index, channel.value),
                f"unknown {'e-mail' if channel is Channel.EMAIL else 'SMS'} template {name!r}",
                hint if hint.startswith("did") else f"make {wanted}",
            )

    def _gateway(self, index: int, channel: Channel) -> Iterator[Problem]:
        settings = self.workspace.settings
        fitting = {**settings.gateways_for(channel), **settings.routes_for(channel)}
        name = self._get("steps", index, "gateway")
        if not fitting:
            kinds = (
                "type smtp"
                if channel is Channel.EMAIL
                else "type http, kannel, smpp, twilio, vonage, aliyun or tencent"
            )
            yield self.document.problem(
                ("steps", index), f"the workspace has no {channel} gateway", f"add one of {kinds} to carillon.yaml"
            )
        elif isinstance(name, str) and name not in fitting:
            first = next(iter(settings.routes[name].gateways)) if name in settings.routes else name
            other = f"is for {settings.gateways[first].channel}" if first in settings.gateways else "is unknown"
            yield self.document.problem(
                ("steps", index, "gateway"), f"gateway {name!r} {other}", did_you_mean(name, fitting)
            )

    def _sender(self, index: int) -> Iterator[Problem]:
        settings = self.workspace.settings
        name = self._get("steps", index, "sender")
        if name is None:
            name = next(iter(settings.senders))
        if not isinstance(name, str):
            return
        place = ("steps", index, "sender")
        if name not in settings.senders:
            yield self.document.problem(place, f"unknown sender {name!r}", did_you_mean(name, settings.senders))
            return
        try:
            validate_email(settings.senders[name].email, check_deliverability=False)
        except EmailNotValidError as error:
            yield self.document.problem(
                place,
                f"sender {name!r} has no usable address {settings.senders[name].email!r}: {error}",
                "mend it in carillon.yaml",
            )
        if not settings.brand.postal_address.strip():
            yield self.document.problem(
                ("steps", index), "the brand has no postal address, which law requires", "set brand.postal_address"
            )

    def _conditions(self, index: int) -> Iterator[Problem]:
        earlier = [self._get("steps", before) for before in range(index)]
        for place, word in self._texts("steps", index, "skip_if"):
            if word == "converted" and self._get("goal") is None:
                yield self.document.problem(place, "converted needs a goal", "add goal: to the campaign")
            elif word == "clicked" and not earlier:
                yield self.document.problem(place, "clicked has no earlier step to look at", "put it on a later step")
            elif word == "opened" and not any(isinstance(step, dict) and "email" in step for step in earlier):
                yield self.document.problem(
                    place, "opened has no earlier e-mail to look at", "only e-mails tell of opens"
                )

    def _goal(self) -> Iterator[Problem]:
        yield from self._exactly_one(("goal",), ("order", "opportunity_stage", "event"), "say what is to be reached")
        currency = self.workspace.settings.currency
        value = self._get("goal", "order", "min_value")
        try:
            amount = Decimal(value) if isinstance(value, str) else Decimal(0)
        except InvalidOperation:
            return
        if amount.is_finite() and amount != round(amount, minor_exponent(currency)):
            yield self.document.problem(
                ("goal", "order", "min_value"),
                f"min_value {value!r} has more decimals than {currency}",
                f"{currency} has {minor_exponent(currency)}",
            )

    def _report(self) -> Iterator[Problem]:
        yield from self._exactly_one(("report",), ("after", "every"), "say when, as in `after: 7d`")
        if self._get("report") is not None and not self.workspace.settings.gateways_for(Channel.EMAIL):
            yield self.document.problem(("report",), "the workspace has no email gateway to send reports by", "add one")


def warnings(document: Document, spec: CampaignSpec, workspace: Workspace, *, now: datetime) -> list[Problem]:
    """Return what is allowed in a campaign but is perhaps not meant."""
    return [
        *_about_time(document, spec, workspace, now),
        *_about_goal(document, spec),
        *about_sms(document, spec, workspace),
    ]


def _about_time(document: Document, spec: CampaignSpec, workspace: Workspace, now: datetime) -> Iterator[Problem]:
    settings = workspace.settings
    resolved = spec.resolved(settings)
    schedule = resolved.schedule
    clock = clock_of(schedule, settings.timezone)
    if schedule.at is not None:
        past = fire_times(schedule, settings.timezone, datetime(1970, 1, 1, tzinfo=UTC), now)
        if past:
            does = "it will not run" if schedule.catch_up == "skip" else "it runs as soon as it is applied"
            yield document.problem(("schedule", "at"), f"at {schedule.at} is past", does)
        slot = parse_at(schedule.at).replace(tzinfo=clock)
    else:
        coming = next_fire_time(schedule, settings.timezone, now)
        if coming is None:
            yield document.problem(("schedule", "cron"), "the schedule never fires again", "look at from and until")
            return
        slot = coming.astimezone(clock)
    window = Window.of(resolved.window_of(1))
    if (schedule.zone == RECIPIENT or not window.always) and not window.holds(slot):
        yield document.problem(
            ("schedule", "cron" if schedule.cron else "at"),
            f"{slot:%a %H:%M} lies outside the window",
            "messages wait until it opens",
        )


def _about_goal(document: Document, spec: CampaignSpec) -> Iterator[Problem]:
    if spec.goal is None:
        if spec.report is not None:
            yield document.problem(("report",), "there is a report but no goal", "it will show no conversions")
        return
    if spec.report is not None and spec.report.after is not None:
        waits = sum((parse_duration(step.wait).total_seconds() for step in spec.steps), 0.0)
        needed = waits + parse_duration(spec.goal.within).total_seconds()
        if parse_duration(spec.report.after).total_seconds() < needed:
            yield document.problem(
                ("report", "after"),
                f"the report after {spec.report.after} comes before the goal's window has ended",
                f"steps and goal take {needed / 86400:g} days; conversions that come later are not in it",
            )
