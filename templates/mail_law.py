"""What the law of a country wants to see in a marketing e-mail, as far as a message can be looked at for it.

What holds everywhere (a postal address, a way out) is in every footer; here stands what some countries want besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailLaw:
    """One country's wishes. `prefixes` are those of which a subject must begin with one."""

    country: str
    prefixes: tuple[str, ...]
    opt_out_address: bool
    source: str


LAWS: Mapping[str, MailLaw] = {
    "CN": MailLaw(
        country="China",
        prefixes=("广告", "AD"),
        opt_out_address=True,
        source="Measures for the Administration of Internet E-mail Services, MII Order 38, articles 13 and 14",
    )
}


def breaches(code: str, subject: str, text: str) -> Iterator[str]:
    """Yield what the law of a country misses in a message; nothing for countries we know nothing of.

    Args:
        code: ISO 3166, as "CN".
        subject: As it would leave.
        text: Its text part.
    """
    law = LAWS.get(code)
    if law is None:
        return
    remedy = f"set it under regions in carillon.yaml ({law.source})"
    if not subject.startswith(law.prefixes):
        wanted = " or ".join(law.prefixes)
        yield f"the law of {law.country} wants a subject that begins with {wanted}, not {subject[:40]!r}; {remedy}"
    if law.opt_out_address and not _ADDRESS.search(text):
        yield f"the law of {law.country} wants an e-mail address that takes opt-outs in the message; {remedy}"
