"""What a campaign file may say. The same models check files, fill editors (JSON Schema) and pin versions."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from campaigns.crontab import parse_cron
from kernel.fields import DateText, DurationText, Money, Name, RateText, SpanText, Strict, WindowSpec, ZoneName
from kernel.quantities import parse_share
from kernel.settings import Limits, Settings
from kernel.vocabulary import Channel, GoalKind

RECIPIENT = "recipient"
"""The zone that means: each recipient's own."""
_AT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d")


def parse_at(text: str) -> datetime:
    """Return the naive wall clock written as "2026-12-01 09:00".

    Raises:
        ValueError: another form, or no such date.
    """
    if not _AT.fullmatch(text):
        raise ValueError(f'{text!r} is not a date and time; write it as "2026-12-01 09:00"')
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date of the calendar") from None


def _check_at(value: str) -> str:
    parse_at(value)
    return value


def _check_cron(value: str) -> str:
    parse_cron(value)
    return value


def _check_share(value: str) -> str:
    if parse_share(value) >= 1:
        raise ValueError(f"{value!r} would hold out everybody; write less than 100%")
    return value


def _check_part(value: str) -> str:
    if not 0 < parse_share(value) < 1:
        raise ValueError(f"{value!r} is not a share above 0% and below 100%")
    return value


def _check_address(value: str) -> str:
    try:
        validate_email(value, check_deliverability=False)
    except EmailNotValidError as error:
        raise ValueError(f"{value!r} is not an e-mail address: {error}") from None
    return value


def _check_zone_or_recipient(value: str) -> str:
    try:
        if value != RECIPIENT:
            ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{value!r} is not a time zone; write one like Europe/Berlin, or recipient") from None
    return value


def _one_or_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_NAME_SCHEMA = {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$"}
OneOrList = WithJsonSchema({"anyOf": [_NAME_SCHEMA, {"type": "array", "items": _NAME_SCHEMA}]})
Names = Annotated[list[Name], BeforeValidator(_one_or_list), OneOrList]
CronText = Annotated[str, AfterValidator(_check_cron)]


class Described(Strict):
    """Base of the models below; docstrings and descriptions go into the JSON Schema."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class Audience(Described):
    """Who the campaign is for."""

    segment: Names = Field(min_length=1, description="A segment, or a list of segments: members of any of them.")
    exclude: Names = Field(default=[], description="Members of these segments are skipped (excluded).")
    roles: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[],
        description="Only contacts with these roles, in order of preference for per_account. Omitted: every contact.",
    )
    per_account: int | None = Field(
        default=None,
        ge=1,
        description="At most so many contacts of one account; the others are skipped (account_limit).",
    )
    holdout: Annotated[str, AfterValidator(_check_share)] | None = Field(
        default=None, description='Share of accounts that get nothing, so that lift can be measured, as "10%".'
    )

    @property
    def holdout_share(self) -> float:
        """The share held out, in [0, 1)."""
        return parse_share(self.holdout) if self.holdout else 0.0


class Schedule(Described):
    """When the campaign runs: once `at` a time, or again and again by `cron`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["at"]}, {"required": ["cron"]}]},
        extra="forbid",
        strict=True,
        frozen=True,
        serialize_by_alias=True,
    )

    at: Annotated[str, AfterValidator(_check_at)] | None = Field(
        default=None, description='Once, at this wall clock in `zone`, as "2026-12-01 09:00".'
    )
    cron: CronText | None = Field(
        default=None, description='Again and again: minute, hour, day, month, weekday, as "0 9 * * mon".'
    )
    from_: DateText | None = Field(default=None, alias="from", description="First day of a cron schedule.")
    until: DateText | None = Field(default=None, description="Last day of a cron schedule, included.")
    zone: Annotated[str, AfterValidator(_check_zone_or_recipient)] | None = Field(
        default=None,
        description='Time zone of `at` and `cron`, as Europe/London; or "recipient": each recipient\'s own. '
        "Default: the workspace's timezone.",
    )
    default_zone: ZoneName | None = Field(
        default=None,
        description="Zone of recipients of whom none is known (neither contact nor account). "
        "Default: the workspace's timezone.",
    )
    window: WindowSpec | None = Field(
        default=None,
        description="Hours and weekdays in which messages may leave, on the recipient's wall clock. "
        "Default: limits.window.",
    )
    catch_up: Literal["latest", "all", "skip"] = Field(
        default="latest",
        description="After downtime or a pause: fire only the latest slot, all slots, or none older than five minutes.",
    )


class Step(Described):
    """One e-mail or SMS to everybody enrolled."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["email"]}, {"required": ["sms"]}]},
        extra="forbid",
        strict=True,
        frozen=True,
    )

    email: Name | None = Field(default=None, description="An e-mail by the template folder of this name.")
    sms: Name | None = Field(default=None, description="An SMS by the template file of this name.")
    sender: Name | None = Field(default=None, description="Who an e-mail is from; default: the first sender.")
    gateway: Name | None = Field(
        default=None, description="Where it leaves: a gateway, or a route; default: the first gateway of its channel."
    )
    wait: DurationText = Field(
        default="0s", description="Time after the previous step's due time (the first: after the run's)."
    )
    window: WindowSpec | None = Field(default=None, description="This step's own window. Default: schedule.window.")
    skip_if: list[Literal["converted", "clicked", "opened"]] = Field(
        default=[],
        description="Not sent if the goal has been met since the run fired, or a person clicked or opened "
        "an earlier step.",
    )

    @property
    def channel(self) -> Channel:
        """E-mail or SMS."""
        return Channel.EMAIL if self.email is not None else Channel.SMS

    @property
    def template(self) -> str:
        """Name of the template."""
        return self.email or self.sms or ""


class OrderGoal(Described):
    """Which orders meet the goal."""

    min_value: Money | None = Field(
        default=None, description='Least net value of one order, in its own currency, as "100.00".'
    )


class Goal(Described):
    """What the campaign is to bring about; exactly one of order, opportunity_stage, event."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["order"]}, {"required": ["opportunity_stage"]}, {"required": ["event"]}]
        },
        extra="forbid",
        strict=True,
        frozen=True,
    )

    order: OrderGoal | None = Field(default=None, description="An order; {} means any order.")
    opportunity_stage: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="An opportunity that enters this stage."
    )
    event: Annotated[str, Field(min_length=1)] | None = Field(default=None, description="A custom event of this name.")
    within: SpanText = Field(description="How long after the touch it still counts, as 14d.")
    touch: list[Literal["click", "open", "sent"]] = Field(
        default=["click", "open"], min_length=1, description="What counts as a touch that earned the conversion."
    )

    @property
    def kind(self) -> GoalKind:
        """Order, opportunity stage or event."""
        if self.opportunity_stage is not None:
            return GoalKind.OPPORTUNITY_STAGE
        return GoalKind.EVENT if self.event is not None else GoalKind.ORDER


class Cost(Described):
    """What the campaign costs beside the gateways' prices, in the workspace's currency."""

    fixed: Money = Field(default="0", description="Once per run.")
    per_email: Money = Field(default="0", description="For each accepted e-mail.")
    per_sms: Money = Field(default="0", description="For each accepted SMS, beside its gateway's price.")


class Utm(Described):
    """Parameters added to links; a parameter that the link has already stays."""

    source: str = Field(default="carillon", description="utm_source.")
    medium: str | None = Field(default=None, description="utm_medium; default: email or sms.")
    campaign: str | None = Field(default=None, description="utm_campaign; default: the campaign's name.")
    content: str | None = Field(default=None, description="utm_content.")
    term: str | None = Field(default=None, description="utm_term.")


class Report(Described):
    """To whom the conversion report is mailed, and when; exactly one of after, every."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["after"]}, {"required": ["every"]}]},
        extra="forbid",
        strict=True,
        frozen=True,
    )

    to: list[Annotated[str, AfterValidator(_check_address)]] = Field(min_length=1, description="E-mail addresses.")
    after: SpanText | None = Field(default=None, description="Once for each run, so long after it fired, as 7d.")
    every: CronText | None = Field(default=None, description='Again and again, as "0 8 * * mon".')


class CampaignBudget(Described):
    """What a campaign's SMS may cost, in the workspace's currency, by the gateways' prices; never more."""

    amount: Money = Field(description='In major units, as "250.00".')
    per: Literal["run", "day", "month"] | None = Field(
        default=None, description="For each run, day or month; default: for the campaign as a whole."
    )


class Canary(Described):
    """A first share that goes ahead; the rest waits until the guardrails have been looked at."""

    share: Annotated[str, AfterValidator(_check_part)] = Field(description='Which share of each run, as "5%".')
    wait: DurationText = Field(default="1h", description="How long the rest waits after the last of the first share.")


class Guardrails(Described):
    """Shares over which the campaign is paused; counted for each run."""

    bounces: Annotated[str, AfterValidator(_check_part)] | None = Field(
        default=None, description='Bounced, or refused at once, as "5%".'
    )
    complaints: Annotated[str, AfterValidator(_check_part)] | None = Field(
        default=None, description='Called spam by their recipients, as "0.1%".'
    )
    unsubscribes: Annotated[str, AfterValidator(_check_part)] | None = Field(
        default=None, description='Unsubscribed by a link of the run, as "2%".'
    )
    after: int = Field(default=200, ge=1, description="Nothing is judged before so many messages have been sent.")


class CampaignSpec(Described):
    """A campaign file of Carillon: one audience, one schedule, one or more steps."""

    description: str = Field(default="", description="What the campaign is for, in a sentence.")
    audience: Audience = Field(description="Who the campaign is for.")
    schedule: Schedule = Field(description="When it runs.")
    steps: list[Step] = Field(min_length=1, max_length=20, description="Messages, in order.")
    goal: Goal | None = Field(default=None, description="What it is to bring about; without one nothing converts.")
    cost: Cost = Field(default=Cost(), description="What it costs.")
    utm: Utm = Field(default=Utm(), description="Parameters added to links.")
    rate: RateText | None = Field(default=None, description='At most so many messages, spread evenly, as "600/hour".')
    budget: CampaignBudget | None = Field(default=None, description="The most its SMS may cost.")
    canary: Canary | None = Field(default=None, description="A first share that goes ahead of the rest.")
    guardrails: Guardrails | None = Field(default=None, description="Shares over which the campaign is paused.")
    limits: Limits | None = Field(default=None, description="Limits that differ from the workspace's, key by key.")
    report: Report | None = Field(default=None, description="The conversion report by e-mail.")

    def resolved(self, settings: Settings) -> CampaignSpec:
        """Return the spec with every default of the workspace written out, as it is pinned."""
        limits = settings.limits
        if self.limits is not None:
            # Key by key: a campaign that changes one limit must not lose the workspace's caps.
            given = {name: getattr(self.limits, name) for name in self.limits.model_fields_set}
            limits = limits.model_copy(update=given)
        schedule = self.schedule.model_copy(
            update={
                "zone": self.schedule.zone or settings.timezone,
                "default_zone": self.schedule.default_zone or settings.timezone,
                "window": self.schedule.window or limits.window,
            }
        )
        steps = [_resolved_step(step, settings) for step in self.steps]
        return self.model_copy(
            update={
                "schedule": schedule,
                "steps": steps,
                "limits": limits,
            }
        )

    def window_of(self, step: int) -> WindowSpec:
        """Return the window of a step, counted from 1."""
        return self.steps[step - 1].window or self.schedule.window or WindowSpec()

    def utm_for(self, step: int, campaign: str) -> dict[str, str]:
        """Return the parameters added to a step's links, by their names without `utm_`."""
        values = {
            "source": self.utm.source,
            "medium": self.utm.medium or self.steps[step - 1].channel.value,
            "campaign": self.utm.campaign or campaign,
            "content": self.utm.content,
            "term": self.utm.term,
        }
        return {name: value for name, value in values.items() if value}


def _resolved_step(step: Step, settings: Settings) -> Step:
    gateways = settings.gateways_for(step.channel)
    sender = step.sender or (next(iter(settings.senders)) if step.channel is Channel.EMAIL else None)
    return step.model_copy(update={"gateway": step.gateway or next(iter(gateways), None), "sender": sender})


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of campaign files, for editors."""
    schema = CampaignSpec.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://carillon.example/schema/campaign.json",
        **schema,
        "title": "Carillon campaign",
    }
