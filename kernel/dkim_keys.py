"""The keys a sender signs with, as carillon.yaml names them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from kernel.fields import Strict, form

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
SELECTOR_RULE = "it becomes a name in the DNS: up to 63 letters, digits and hyphens within, as 2026a"
Selector = Annotated[str, form(rf"(?=.{{1,190}}$){_LABEL}(\.{_LABEL})*", f"is no selector; {SELECTOR_RULE}")]


class DkimKeySettings(Strict):
    """A private key that signs a sender's messages; its kind is told by the key itself."""

    selector: Selector
    domain: str | None = Field(default=None, description="d= of the signature; default: the sender's domain.")
    key: SecretStr | None = Field(default=None, description="The key itself, from the environment: ${DKIM_KEY}.")
    key_file: str | None = Field(
        default=None, min_length=1, description="Or its file, within the workspace or anywhere."
    )

    @model_validator(mode="after")
    def _one_key(self) -> DkimKeySettings:
        if (self.key is None) == (self.key_file is None):
            raise ValueError("give either key or key_file")
        return self
