"""What countries ask of marketing by SMS, as far as a campaign file, its gateway and its templates show it. Pure.

Hints for whoever writes the campaign, not legal advice: what is allowed to whom is for a lawyer to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kernel.fields import WindowSpec, minutes_of
from kernel.sms_terms import SmsTerms

_LINK = re.compile(r"https?://|\bwww\.", re.IGNORECASE)
_SIGNED = re.compile(r"^\s*【[^【】]{2,12}】|【[^【】]{2,12}】\s*$")
_VARIABLE = re.compile(r"\{\{.*?\}\}", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """The rules of one country. `hours` on the recipient's wall clock; None where we know of none."""

    hours: str | None = None
    opt_out: tuple[str, ...] = ("STOP",)
    """Any one of these words has to stand in the text."""
    usual: str = "Reply STOP to opt out"
    chinese: bool = False
    source: str


LAWS: Mapping[str, Law] = {
    "US": Law(
        hours="08:00-21:00",
        opt_out=("STOP", "END", "QUIT", "CANCEL", "UNSUBSCRIBE"),
        source="47 CFR 64.1200(a)(10) and (c)(1); some states allow less, as Florida 08:00-20:00",
    ),
    "CA": Law(opt_out=("STOP", "ARRET", "ARRÊT"), usual="Reply STOP or ARRET", source="CASL, section 11"),
    "GB": Law(source="PECR 2003, regulation 22(3)(c)"),
    "IE": Law(source="S.I. 336/2011, regulation 13"),
    "FR": Law(usual="STOP au 36180", source="CPCE, article L34-5"),
    "DE": Law(opt_out=("STOP", "STOPP", "Abmelden"), usual="Abmelden: STOP", source="UWG, section 7(3)"),
    "AT": Law(opt_out=("STOP", "STOPP", "Abmelden"), usual="Abmelden: STOP", source="TKG 2021, section 174"),
    "ES": Law(opt_out=("BAJA", "STOP"), usual="BAJA al 36180", source="LSSI, article 21"),
    "CN": Law(
        hours="08:00-21:00",
        opt_out=("拒收请回复R",),
        usual="拒收请回复R",
        chinese=True,
        source="MIIT order 31 (2015); the wording Aliyun, Tencent Cloud and Huawei Cloud require",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something a country asks for and a step does not have."""

    message: str
    hint: str


def about_hours(country: str, window: WindowSpec) -> Iterator[Remark]:
    """Yield what is wrong with the hours in which texts may leave for a country."""
    law = LAWS.get(country)
    if law is None or law.hours is None:
        return
    opens, closes = minutes_of(window.hours)
    earliest, latest = minutes_of(law.hours)
    if opens < earliest or closes > latest:
        yield Remark(
            message=f"texts may leave at {window.hours} on the recipient's clock; in {country} from {law.hours} only",
            hint=f'set window: {{hours: "{law.hours}"}} ({law.source})',
        )


def about_text(country: str, terms: SmsTerms, source: str) -> Iterator[Remark]:
    """Yield what a template misses or has too much of for a country.

    Args:
        country: ISO 3166 code; countries we know nothing of ask for nothing.
        terms: Those of the gateway: its opt-out wording is put behind every text, its signature before.
        source: The template.
    """
    law = LAWS.get(country)
    if law is None:
        return
    whole = f"{source}\n{terms.opt_out}"
    if not any(_says(whole, word) for word in law.opt_out):
        yield Remark(
            message=f"nothing says how to opt out, which {country} asks for",
            hint=f"write for example {law.usual!r}, or set opt_out of the gateway ({law.source})",
        )
    if law.chinese:
        yield from _about_chinese_text(terms, source)


def _about_chinese_text(terms: SmsTerms, source: str) -> Iterator[Remark]:
    brackets = "【" in source or "】" in source
    if terms.signature and brackets:
        yield Remark(
            message="the text holds 【 or 】, which the platform's signature alone may have",
            hint=f"take them out: the platform adds {terms.signature}",
        )
    elif not terms.signature and not _SIGNED.search(source):
        yield Remark(
            message="the text has no signature 【…】, which CN asks for",
            hint="set signature of the gateway where the platform adds it, else begin the text with it",
        )
    if _LINK.search(source):
        yield Remark(
            message="the text holds a link; Carillon makes links personal, and Chinese platforms refuse personal links",
            hint="leave links out: only constant ones with an ICP filing pass",
        )
    if re.search(r"\}\}\s*\{\{", source):
        yield Remark(
            message="two variables stand side by side, which Chinese platforms refuse", hint="put words between them"
        )
    if not _VARIABLE.sub("", source).strip():
        yield Remark(message="the text is all variable, which Chinese platforms refuse", hint="write the words out")


def _says(text: str, word: str) -> bool:
    """Tell whether a wording stands in a text, as words of its own; Chinese has no spaces to tell by."""
    if not word[0].isascii():
        return word in text
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None
