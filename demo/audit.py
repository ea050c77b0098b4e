"""Checking the books from outside: what the ledger calls accepted against what really arrived."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, select

from campaigns.books import Books, books
from demo.mailbox import Received
from demo.sms_gateway import Sms
from kernel.signing import Signer
from kernel.vocabulary import ACCEPTED_STATES, Channel
from store.engine import reading
from store.schema import installation
from store.tables import campaigns, messages, runs

_MESSAGE_ID = re.compile(r"<m(\d+)\.([0-9a-f]+)@[^>]+>")


@dataclass(slots=True, kw_only=True)
class CampaignAccount:
    """One campaign's account: what the ledger says, and what the mailbox and the SMS gateway hold."""

    campaign: str
    books: Books
    accepted: dict[Channel, set[int]] = field(default_factory=lambda: {channel: set() for channel in Channel})
    arrived: dict[Channel, Counter[int]] = field(default_factory=lambda: {channel: Counter() for channel in Channel})

    def problems(self) -> list[str]:
        """Return what does not agree, in words; empty where all does."""
        found = (
            [] if self.books.balanced else [f"{self.campaign}: the audience is not the sum of its ends: {self.books}"]
        )
        if self.books.audience == 0:
            found.append(f"{self.campaign}: nobody is in its audience")
        for channel in Channel:
            accepted, arrived = self.accepted[channel], self.arrived[channel]
            twice = sorted(message for message, count in arrived.items() if count > 1)
            missing, extra = sorted(accepted - arrived.keys()), sorted(arrived.keys() - accepted)
            if twice:
                found.append(f"{self.campaign}: arrived more than once by {channel}: messages {_some(twice)}")
            if missing:
                found.append(f"{self.campaign}: accepted by {channel}, but never arrived: messages {_some(missing)}")
            if extra:
                found.append(
                    f"{self.campaign}: arrived by {channel}, but not in the ledger as accepted: {_some(extra)}"
                )
        if sum(len(numbers) for numbers in self.accepted.values()) != self.books.sent:
            found.append(f"{self.campaign}: the books say {self.books.sent} sent, the ledger has other rows")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The accounts of every campaign, and what arrived without belonging to any."""

    by_campaign: list[CampaignAccount]
    strays: list[str]

    def problems(self) -> list[str]:
        """Return everything that does not agree, in words; empty where all does."""
        return [problem for account in self.by_campaign for problem in account.problems()] + self.strays


def settle_accounts(engine: Engine, signer: Signer, mail: Sequence[Received], texts: Sequence[Sms]) -> Accounts:
    """Return the accounts of all campaigns.

    Args:
        engine: The database.
        signer: The workspace's; references of SMS are signed.
        mail: What arrived by e-mail, reports left out.
        texts: What arrived by SMS.
    """
    strays: list[str] = []
    with reading(engine) as connection:
        found = {
            row.id: CampaignAccount(campaign=row.name, books=books(connection, campaign_id=row.id))
            for row in _all(connection)
        }
        owner: dict[int, int] = {}
        query = select(messages.c.id, messages.c.channel, messages.c.state, runs.c.campaign_id).join(
            runs, runs.c.id == messages.c.run_id
        )
        for row in connection.execute(query):
            owner[row.id] = row.campaign_id
            if row.state in ACCEPTED_STATES:
                found[row.campaign_id].accepted[Channel(row.channel)].add(row.id)
        name = installation(connection)
    for received in mail:
        known = _MESSAGE_ID.fullmatch(received.message_id)
        if known and known[2] == name and int(known[1]) in owner:
            found[owner[int(known[1])]].arrived[Channel.EMAIL][int(known[1])] += 1
        else:
            strays.append(f"{received.file}: {received.message_id} is no message of the ledger")
    for sms in texts:
        signed = signer.verify_address(sms.client_ref)
        if signed and signed.message_id in owner:
            found[owner[signed.message_id]].arrived[Channel.SMS][signed.message_id] += 1
        else:
            strays.append(f"{sms.id}: reference {sms.client_ref} is no message of the ledger")
    return Accounts(by_campaign=list(found.values()), strays=strays)


def _all(connection: Connection) -> Sequence[Any]:
    return connection.execute(select(campaigns.c.id, campaigns.c.name).order_by(campaigns.c.name)).all()


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
