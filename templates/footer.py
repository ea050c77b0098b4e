"""What the law wants at the end of a marketing e-mail: who sends it from where, and how to end it.

Source: CAN-SPAM, 15 USC 7704(a)(3) and (5); a template that shows these itself gets no second footer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

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
        return (
            f'<div style="{_STYLE};text-align:center">{self.address_html}<br><a href="',
            f'" style="color:#5f6b7a">{self.unsubscribe}</a> &middot; <a href="',
            f'" style="color:#5f6b7a">{self.preferences}</a></div>',
        )

    @property
    def around_text(self) -> tuple[str, str, str]:
        """What stands before, between and after the two links in a text."""
        return (f"-- \n{self.address}\n{self.unsubscribe}: ", f"\n{self.preferences}: ", "\n")


def brand_values(brand: Brand) -> dict[str, str]:
    """Return the brand as templates see it, its postal address on one line."""
    address = ", ".join(line.strip() for line in brand.postal_address.splitlines() if line.strip())
    return {"name": brand.name, "postal_address": address, "website": brand.website, "color": brand.color}


def footer_of(brand: Brand, language: str) -> Footer:
    """Return the footer for a brand, in words of the language where they are known, else in English."""
    unsubscribe, preferences = _WORDS.get(language.split("-", maxsplit=1)[0].lower(), _WORDS["en"])
    address = f"{brand.name}, {brand_values(brand)['postal_address']}"
    return Footer(address=address, address_html=str(escape(address)), unsubscribe=unsubscribe, preferences=preferences)
