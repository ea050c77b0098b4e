"""Why a message was not sent, in words: what `carillon ledger show` says, and docs/campaigns.md too."""

from __future__ import annotations

from kernel.vocabulary import FailReason, SkipReason

_WORDS: dict[str, str] = {
    SkipReason.EXCLUDED: "the person is in a segment the campaign excludes",
    SkipReason.ACCOUNT_LIMIT: "others of the account go before (per_account)",
    SkipReason.NO_ADDRESS: "no e-mail address, or no number, is known",
    SkipReason.INVALID_ADDRESS: "the address is not one that can be sent to",
    SkipReason.DUPLICATE_ADDRESS: "another contact with the same address gets this step",
    SkipReason.NO_CONSENT: "no consent is granted for the channel",
    SkipReason.SUPPRESSED: "the address is suppressed; `carillon suppressions show ADDRESS` tells why",
    SkipReason.FREQUENCY_CAP: "the person had as many messages lately as limits.caps allow",
    SkipReason.CONVERTED: "somebody of the account has met the goal since the run fired (skip_if)",
    SkipReason.STEP_CONDITION: "a person clicked or opened an earlier step (skip_if)",
    SkipReason.TOO_LATE: "later than limits.max_age past the time it was due",
    SkipReason.CANCELLED: "the campaign or the run was cancelled",
    SkipReason.CONTACT_DELETED: "the contact is gone",
    FailReason.TEMPLATE_ERROR: "the template could not be rendered for this person",
    FailReason.REFUSED: "the gateway refused it for good",
    FailReason.RETRIES_EXHAUSTED: "put off by the gateway until attempts or age were used up",
}


def in_words(reason: str | None) -> str:
    """Return a reason with its meaning, as "too_late: later than …"; a reason without words stands alone."""
    if not reason:
        return "no reason is kept"
    words = _WORDS.get(reason)
    return f"{reason}: {words}" if words else reason
