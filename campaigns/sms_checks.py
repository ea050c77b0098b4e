"""What is allowed in the SMS steps of a campaign but is perhaps not meant: dear letters, and what countries ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from campaigns.schema import CampaignSpec
from campaigns.sms_law import about_hours, about_text
from kernel.documents import Document
from kernel.errors import Problem
from kernel.settings import Workspace
from kernel.sms_terms import SmsTerms
from kernel.vocabulary import Channel
from templates.files import template_files
from templates.sms_letters import DearLetter, dear_letters, is_avoidable


def about_sms(document: Document, spec: CampaignSpec, workspace: Workspace) -> Iterator[Problem]:
    """Yield warnings about the SMS steps of a campaign; the country is the one their gateway names."""
    resolved = spec.resolved(workspace.settings)
    seen: set[str] = set()
    for index, step in enumerate(resolved.steps):
        if step.channel is not Channel.SMS:
            continue
        terms = workspace.settings.sms_terms(step.gateway)
        if terms.country:
            for remark in about_hours(terms.country, resolved.window_of(index + 1)):
                yield document.problem(("steps", index), remark.message, remark.hint)
        for path, source in template_files(workspace.root / "templates", step.template, Channel.SMS).items():
            if path not in seen:
                seen.add(path)
                yield from _about_file(f"templates/{path}", source, terms)


def dear_in(files: Mapping[str, str], terms: SmsTerms) -> dict[str, list[DearLetter]]:
    """Return by file the letters that make texts dear without need; none where every character counts alike."""
    if terms.counting == "cn" or not terms.own_words:
        return {}
    found = {path: dear_letters(source) for path, source in files.items()}
    return {path: letters for path, letters in found.items() if letters and is_avoidable(letters)}


def _about_file(path: str, source: str, terms: SmsTerms) -> Iterator[Problem]:
    for letters in dear_in({path: source}, terms).values():
        for letter in letters:
            yield Problem(
                path=path,
                line=letter.line,
                column=letter.column,
                message=f"{letter.shown} ({letter.name}) is outside the GSM alphabet: 67 letters in a part, not 153",
                hint=letter.remedy,
            )
    if terms.country and terms.own_words:
        for remark in about_text(terms.country, terms, source):
            yield Problem(path=path, line=1, column=1, message=remark.message, hint=remark.hint)
