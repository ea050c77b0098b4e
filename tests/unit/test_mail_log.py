"""Postfix's mail log read: what counts as taken over, how often, and the time a log covers."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kernel.errors import ConfigError
from workers.mail_log import MailLog, read_mail_logs

NOW = datetime(2026, 11, 26, 18, tzinfo=UTC)
OURS = "8d11a0e04d1a"


def read(tmp_path: Path, text: str, *, now: datetime = NOW) -> MailLog:
    path = tmp_path / "mail.log"
    path.write_text(text, encoding="utf-8")
    return read_mail_logs([path], OURS, now=now)


DELIVERED = f"""\
Nov 26 15:46:40 mx postfix/smtpd[21800]: 6759B20E382: client=localhost[127.0.0.1]
Nov 26 15:46:40 mx postfix/cleanup[21803]: 6759B20E382: message-id=<m17.{OURS}@acme.example>
Nov 26 15:46:40 mx postfix/qmgr[21798]: 6759B20E382: from=<bounce+x@acme.example>, size=303, nrcpt=1 (queue active)
Nov 26 15:46:41 mx postfix/smtp[21804]: 6759B20E382: to=<a@b.example>, relay=mx.b.example[192.0.2.1]:25, delay=0.05, \
delays=0.02/0.02/0/0.01, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4Zabc)
Nov 26 15:46:41 mx postfix/qmgr[21798]: 6759B20E382: removed
"""


def test_a_message_taken_over_and_delivered(tmp_path: Path) -> None:
    found = read(tmp_path, DELIVERED)
    assert found.mails.keys() == {17}
    assert found.mails[17].queue_ids == ["6759B20E382"]
    assert found.mails[17].status == "sent"
    assert found.mails[17].words == ""


def test_a_message_id_alone_proves_nothing(tmp_path: Path) -> None:
    """The client was lost while the text was still arriving: cleanup had read the head, no more."""
    text = f"""\
Nov 26 15:46:40 mx postfix/smtpd[1]: 6759B20E382: client=localhost[127.0.0.1]
Nov 26 15:46:40 mx postfix/cleanup[2]: 6759B20E382: message-id=<m17.{OURS}@acme.example>
Nov 26 15:46:45 mx postfix/smtpd[1]: lost connection after DATA (1024 bytes) from localhost[127.0.0.1]
"""
    assert read(tmp_path, text).mails == {}


def test_taken_over_twice_is_two_queue_ids(tmp_path: Path) -> None:
    again = DELIVERED.replace("6759B20E382", "7889D20E133")
    assert read(tmp_path, DELIVERED + again).mails[17].queue_ids == ["6759B20E382", "7889D20E133"]


def test_what_a_content_filter_hands_back_is_the_same_acceptance(tmp_path: Path) -> None:
    text = f"""\
Nov 26 15:46:40 mx postfix/cleanup[2]: AAAAAA20E38: message-id=<m17.{OURS}@acme.example>
Nov 26 15:46:40 mx postfix/qmgr[3]: AAAAAA20E38: from=<x@acme.example>, size=303, nrcpt=1 (queue active)
Nov 26 15:46:41 mx postfix/cleanup[2]: BBBBBB20E38: message-id=<m17.{OURS}@acme.example>
Nov 26 15:46:41 mx postfix/qmgr[3]: BBBBBB20E38: from=<x@acme.example>, size=333, nrcpt=1 (queue active)
Nov 26 15:46:41 mx amavis/smtp[4]: AAAAAA20E38: to=<a@b.example>, relay=127.0.0.1[127.0.0.1]:10024, dsn=2.0.0, \
status=sent (250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as BBBBBB20E38)
Nov 26 15:46:42 mx postfix/smtp[5]: BBBBBB20E38: to=<a@b.example>, relay=mx.b.example[192.0.2.1]:25, dsn=5.1.1, \
status=bounced (host mx.b.example said: 550 5.1.1 unknown)
"""
    logged = read(tmp_path, text).mails[17]
    assert logged.queue_ids == ["AAAAAA20E38"]
    assert (logged.status, logged.words) == ("bounced", "host mx.b.example said: 550 5.1.1 unknown")


def test_strangers_and_other_installations_are_left_out(tmp_path: Path) -> None:
    text = DELIVERED.replace(OURS, "000000000000") + DELIVERED.replace(f"m17.{OURS}", "other").replace("6759", "6760")
    found = read(tmp_path, text)
    assert found.mails == {}
    assert found.lines == 10


def test_long_queue_ids_and_times_with_a_zone(tmp_path: Path) -> None:
    text = (
        DELIVERED.replace("6759B20E382", "4ZxYkL0Qb2z3cK")
        .replace("Nov 26 15:46:40", "2026-11-26T16:46:40.123456+01:00")
        .replace("Nov 26 15:46:41", "2026-11-26T16:46:41.123456+01:00")
    )
    found = read(tmp_path, text)
    assert found.mails[17].queue_ids == ["4ZxYkL0Qb2z3cK"]
    assert found.mails[17].at == datetime(2026, 11, 26, 15, 46, 40, 123456, tzinfo=UTC)


def test_a_log_covers_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    found = read(tmp_path, DELIVERED)
    assert found.first_at is not None
    second = timedelta(seconds=1)
    assert found.covers(found.first_at, found.first_at + second)
    assert not found.covers(found.first_at - second, found.first_at)
    assert not found.covers(found.first_at, found.first_at + 2 * second)
    assert not MailLog().covers(NOW, NOW)


def test_a_line_without_a_year_is_never_of_the_future(tmp_path: Path) -> None:
    found = read(tmp_path, DELIVERED, now=datetime(2027, 1, 2, tzinfo=UTC))
    assert found.first_at is not None
    assert found.first_at.year == 2026


def test_rotated_and_gzipped_logs_are_read_as_one(tmp_path: Path) -> None:
    head, tail = DELIVERED.splitlines(keepends=True)[:3], DELIVERED.splitlines(keepends=True)[3:]
    older, newer = tmp_path / "mail.log.2.gz", tmp_path / "mail.log.1"
    older.write_bytes(gzip.compress("".join(head).encode()))
    newer.write_text("".join(tail), encoding="utf-8")
    assert read_mail_logs([older, newer], OURS, now=NOW).mails[17].status == "sent"


@pytest.mark.parametrize("content", ["", "no times here\n" * 3])
def test_a_file_that_is_no_mail_log_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError, match="no line that begins with a time"):
        read(tmp_path, content)


def test_a_file_that_is_not_there_or_torn_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mail_logs([tmp_path / "none"], OURS, now=NOW)
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(DELIVERED.encode())[:-20])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mail_logs([torn], OURS, now=NOW)


def test_bytes_that_are_no_text_do_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "mail.log"
    path.write_bytes(b"Nov 26 15:46:40 mx postfix/smtpd[1]: \xff\x00\xfe status=\n" + DELIVERED.encode())
    assert read_mail_logs([path], OURS, now=NOW).mails[17].status == "sent"
