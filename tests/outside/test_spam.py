"""SpamAssassin's local rules judge the examples a marketer copies: no network, no learning, no user's settings."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.outside.programs import program
from tests.outside.sending import Mail

CEILING = 2.0
"""Of the 5.0 at which SpamAssassin calls a message spam."""

_STATUS = re.compile(r"^X-Spam-Status: (?:Yes|No), score=(-?[\d.]+) .*?tests=([A-Z0-9_,\s]*)", re.MULTILINE | re.DOTALL)
_BAD = b"""\
From: "WIN $$$" <winner@prize.example>\r
To: you@customer.example\r
Subject: CONGRATULATIONS!!! YOU HAVE WON $1,000,000.00\r
Content-Type: text/html\r
\r
<html><body><font color="#ffffff">lottery viagra</font><a href="http://192.0.2.1/x.exe">CLICK HERE NOW</a>\r
<img src="http://192.0.2.1/big.gif">Dear friend, I am Barrister Smith, transfer of US$15 million.</body></html>\r
"""


def judged(body: bytes, home: Path) -> tuple[float, list[str]]:
    """Return SpamAssassin's score and the rules that hit."""
    done = subprocess.run(
        [program("spamassassin", debian="spamassassin"), "-L", "-t", "-x", "--cf=use_bayes 0"],
        input=body,
        capture_output=True,
        timeout=120,
        env={**os.environ, "HOME": str(home)},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = _STATUS.search(done.stdout.decode("utf-8", "replace"))
    assert found is not None, done.stdout[:600]
    return float(found[1]), [rule for rule in re.split(r"[,\s]+", found[2]) if rule]


def test_the_judge_knows_spam_when_it_sees_it(tmp_path: Path) -> None:
    score, rules = judged(_BAD, tmp_path)
    assert score > 2 * CEILING, rules


@pytest.mark.timeout(300)
def test_no_example_comes_near_spam(example_mails: list[Mail], tmp_path: Path) -> None:
    scores = {mail.name: judged(mail.body, tmp_path) for mail in example_mails}
    for name, (score, rules) in scores.items():
        print(f"{name}: {score:+.1f} {' '.join(rules)}")
    assert {name: found for name, found in scores.items() if found[0] >= CEILING} == {}
