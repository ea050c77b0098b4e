"""What the law wants at the end of a marketing e-mail: who sends it from where, and how to end it.

Source: CAN-SPAM, 15 USC 7704(a)(3) and (5); a template that shows these itself gets no second footer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from kernel.regions import Region
from kernel.settings import Brand

_WORDS: Mapping[str, tuple[str, str]] = {
    "en": ("Unsubscribe", "Preferences"),
    "de": ("Abmelden", "Einstellungen"),
    "fr": ("Se désabonner", "Préférences"),
    "es": ("Darse de baja", "Preferencias"),
    "it": ("Annulla iscrizione", "Preferenze"),
    "nl": ("Uitschrijven", "Voorkeuren"),
    "pl": ("Wypisz się", "Preferencje"),
    "pt": ("Cancelar inscrição", "Preferências"),
}
_STYLE = "padding:24px 16px;font-family:Arial,Helvetica,sans-serif;font-size:12px;line-height:18px;color:#5f6b7a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """The footer of one step in one language, without the links of a message."""

    address: str
    """Name and postal address, on one line."""
    address_html: str
    unsubscribe: str
    preferences: str
    more: str = ""
    """What the law of a region wants besides, on one line."""

    def html(self, unsubscribe_url: str, preferences_url: str) -> Markup:
        """Return the footer as HTML. The URLs are Carillon's own and hold nothing to escape."""
        before, between, after = self.around_html
        whole = f"{before}{unsubscribe_url}{between}{preferences_url}{after}"
        return Markup(whole)  # noqa: S704 - made of escaped text and our own URLs

    def text(self, unsubscribe_url: str, preferences_url: str) -> str:
        """Return the footer as text."""
        before, between, after = self.around_text
        return f"{before}{unsubscribe_url}{between}{preferences_url}{after}"

    @property
    def around_html(self) -> tuple[str, str, str]:
        """What stands before, between and after the two links in HTML."""
        more = f"{escape(self.more)}<br>" if self.more else ""
        return (
            f'<div style="{_STYLE};text-align:center">{self.address_html}<br>{more}<a href="',
            f'" style="color:#5f6b7a">{self.unsubscribe}</a> &middot; <a href="',
            f'" style="color:#5f6b7a">{self.preferences}</a></div>',
        )

    @property
    def around_text(self) -> tuple[str, str, str]:
        """What stands before, between and after the two links in a text."""
        more = f"{self.more}\n" if self.more else ""
        return (f"-- \n{self.address}\n{more}{self.unsubscribe}: ", f"\n{self.preferences}: ", "\n")


def brand_values(brand: Brand) -> dict[str, str]:
    """Return the brand as templates see it, its postal address on one line."""
    address = ", ".join(line.strip() for line in brand.postal_address.splitlines() if line.strip())
    return {"name": brand.name, "postal_address": address, "website": brand.website, "color": brand.color}


def footer_of(brand: Brand, language: str, more: str = "") -> Footer:
    """Return the footer for a brand, in words of the language where they are known, else in English.

    Args:
        brand: Name and postal address.
        language: BCP 47.
        more: What the law of a region wants besides, on one line.
    """
    unsubscribe, preferences = _WORDS.get(language.split("-", maxsplit=1)[0].lower(), _WORDS["en"])
    address = f"{brand.name}, {brand_values(brand)['postal_address']}"
    return Footer(
        address=address,
        address_html=str(escape(address)),
        unsubscribe=unsubscribe,
        preferences=preferences,
        more=more,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """What the law wants in the messages of a step to one group of countries; `index` counts the step's."""

    index: int
    footer: Footer
    subject_prefix: str = ""

    def subject(self, line: str) -> str:
        """Return the subject with what must stand at its beginning, once."""
        return line if line.startswith(self.subject_prefix.strip()) else f"{self.subject_prefix}{line}"


class Laws:
    """The laws of a step: one for everybody, and those of regions."""

    def __init__(self, brand: Brand, language: str, regions: Iterable[Region]) -> None:
        """Take the brand and language of the footers, and the regions; the first that names a country holds there."""
        self.common = Law(index=0, footer=footer_of(brand, language))
        self.all = [self.common]
        self._by_country: dict[str, Law] = {}
        for region in regions:
            footer = footer_of(brand, language, region.footer)
            law = Law(index=len(self.all), footer=footer, subject_prefix=region.subject_prefix)
            self.all.append(law)
            for country in region.countries:
                self._by_country.setdefault(country, law)

    def of(self, context: Mapping[str, Any]) -> Law:
        """Return the law of a person's country, which is that of the account."""
        if not self._by_country:
            return self.common
        account = context.get("account") or {}
        return self._by_country.get(account.get("country") or "", self.common)
