"""What a flight says of messages nobody spoke of."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kernel.clock import to_ms
from store.ledger import Ending
from templates.mail import ComposedMail
from workers.channels.port import Parcel, Receipt
from workers.flight import ChunkFlight, Passenger, RetryPolicy
from workers.recorder import FlightRecorder

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_what_was_committed_and_never_spoken_of_is_in_doubt_and_not_sent_again(tmp_path: Path) -> None:
    passengers = [_passenger(index) for index in range(4)]
    recorder = FlightRecorder.create(tmp_path / "1.flight", 1, [one.parcel.message_id for one in passengers])
    flight = ChunkFlight(
        recorder, passengers, began_at=NOW, began=time.monotonic(), lease_ends=lambda: time.monotonic() + 60
    )
    for index in (0, 1, 2):
        flight.commit(index)
    flight.accepted(0, Receipt(reply="250 ok", code=250))
    flight.retract(2)
    assert [outcome.ending for outcome in flight.take()] == [
        Ending.ACCEPTED,
        Ending.IN_DOUBT,
        Ending.UNTOUCHED,
        Ending.UNTOUCHED,
    ]
    recorder.close(remove=True)


def _passenger(index: int) -> Passenger:
    content = ComposedMail(
        envelope_from="b@acme.example",
        envelope_to=f"ann{index}@shop.example",
        message_id_header=f"<{index}@acme.example>",
        subject="hi",
        data=b"Subject: hi\r\n\r\nhi\r\n",
    )
    parcel = Parcel(index=index, message_id=100 + index, ref="", content=content)
    day = timedelta(days=1)
    retry = RetryPolicy(first=day, longest=day, attempts=3, max_age=day)
    return Passenger(parcel=parcel, planned_ms=to_ms(NOW), attempts=0, price_micro=None, retry=retry)
