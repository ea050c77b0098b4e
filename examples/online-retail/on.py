"""Run a carillon command as if a day of the past had just begun: the data of this example end in December 2011.

python on.py 2011-12-11 segments refresh

Carillon works at the present: it asks who bought within 90 days from now, and fits its models as of now. Here "now" is
the midnight in London with which the day begins. Only commands that look and compute are run so, none that sends.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import kernel.clock

LOOKING = ("clusters", "import", "lifetime", "models", "picture", "rfm", "segments", "sources")


def main() -> None:
    """Take the day off the command line, put the clock there, and hand over to carillon."""
    try:
        day = date.fromisoformat(sys.argv[1])
        command = sys.argv[2]
    except (IndexError, ValueError):
        sys.exit("usage: python on.py DAY COMMAND …, as: python on.py 2011-12-11 segments refresh")
    if command not in LOOKING:
        sys.exit(f"{command} is not run in the past; these are: {', '.join(LOOKING)}")
    now = datetime.combine(day, time(), tzinfo=ZoneInfo("Europe/London")).astimezone(UTC)
    kernel.clock.system_clock = lambda: now
    del sys.argv[1]
    from cli.main import main as carillon  # imported now: its modules take the clock as they find it

    carillon()


if __name__ == "__main__":
    main()
