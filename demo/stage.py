"""The stage of the demo: a copy of the example workspace with the shop's data, ports and a present time."""

from __future__ import annotations

import secrets
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from demo.shop import make_shop, write_shop
from kernel.errors import ConfigError

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "wholesale"
ALWAYS = 'window: {hours: "00:00-24:00"}'
OFFICE_HOURS = 'window: {hours: "08:00-18:00", days: [mon, tue, wed, thu, fri]}'
OFFICE_HOURS_EVERY_DAY = 'window: {hours: "08:00-18:00"}'
_MARK = ".carillon-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Free ports for every server of the demo."""

    smtp: int
    sms: int
    web: int
    inbound: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The demo's folder, and what its processes find in their environment."""

    root: Path
    ports: Ports
    api_token: str
    callback_token: str
    rows: Mapping[str, int]

    @property
    def base_url(self) -> str:
        """Where the web server answers."""
        return f"http://127.0.0.1:{self.ports.web}"

    @property
    def stop_url(self) -> str:
        """Where the SMS gateway hands in what people answered."""
        return f"{self.base_url}/v1/gateways/sms/inbound/{self.callback_token}"

    @property
    def mailbox(self) -> Path:
        """Folder of the local mailbox."""
        return self.root / "mailbox"

    @property
    def sms(self) -> Path:
        """Folder of the local SMS gateway."""
        return self.root / "sms"

    @property
    def env_file(self) -> Path:
        """The variables as a file that a shell can read; its owner's alone, for it holds tokens."""
        return self.root / "env"

    @property
    def variables(self) -> dict[str, str]:
        """What carillon.yaml takes from the environment."""
        return {
            "DEMO_SMTP_PORT": str(self.ports.smtp),
            "DEMO_SMS_PORT": str(self.ports.sms),
            "DEMO_WEB_PORT": str(self.ports.web),
            "DEMO_INBOUND_PORT": str(self.ports.inbound),
            "DEMO_API_TOKEN": self.api_token,
            "DEMO_SMS_CALLBACK_TOKEN": self.callback_token,
        }


def set_stage(root: Path, *, seed: int, now: datetime) -> Stage:
    """Return a fresh stage in `root`; an earlier demo's is replaced.

    Raises:
        ConfigError: the folder holds something that is no earlier demo's.
    """
    clear(root)
    shutil.copytree(EXAMPLE, root, dirs_exist_ok=True)
    (root / _MARK).write_text("made by `make demo`; safe to delete\n", encoding="utf-8")
    rows = write_shop(make_shop(seed, now.date()), root / "data")
    stage = Stage(
        root=root,
        ports=free_ports(),
        api_token=secrets.token_urlsafe(24),
        callback_token=secrets.token_urlsafe(24),
        rows=rows,
    )
    stage.env_file.touch(mode=0o600)
    stage.env_file.write_text("".join(f"{name}={value}\n" for name, value in stage.variables.items()), encoding="utf-8")
    return stage


def clear(root: Path) -> None:
    """Remove an earlier demo's folder.

    Raises:
        ConfigError: it is no earlier demo's.
    """
    if not root.exists() or not any(root.iterdir()):
        root.mkdir(parents=True, exist_ok=True)
        return
    if not (root / _MARK).is_file():
        raise ConfigError(f"{root} is not an earlier demo's folder; choose another with --folder")
    shutil.rmtree(root)
    root.mkdir(parents=True)


def free_ports() -> Ports:
    """Return ports that were free a moment ago, all different."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three, socket.socket() as four:
        for probe in (one, two, three, four):
            probe.bind(("127.0.0.1", 0))
        smtp, sms, web, inbound = (int(probe.getsockname()[1]) for probe in (one, two, three, four))
    return Ports(smtp=smtp, sms=sms, web=web, inbound=inbound)


def let_the_weekly_time_come(root: Path, now: datetime) -> datetime:
    """Put the weekly campaign's time to the next full minute, two seconds ahead at least, and return that instant.

    Its window stays open from 8 to 18 on the recipient's clock, but on every day, so that whatever the hour of the
    demo some of its mail leaves and some waits.
    """
    slot = (now + timedelta(seconds=62)).replace(second=0, microsecond=0)
    wall = slot.astimezone(ZoneInfo("Europe/London"))
    day = wall.strftime("%a").lower()
    _edit(
        root / "campaigns" / "weekly-restock.yaml",
        {
            'cron: "0 8 * * tue"': f'cron: "{wall.minute} {wall.hour} * * {day}"',
            OFFICE_HOURS: OFFICE_HOURS_EVERY_DAY,
        },
    )
    return slot


def let_the_dates_come(root: Path, now: datetime, *, sms_wait: timedelta) -> None:
    """Put the two dated campaigns to the present minute with an open window, and the SMS soon after its e-mail.

    Marketing at any hour would be wrong in earnest; here it lets the demo show mail whenever it runs.
    """
    wall = now.astimezone(ZoneInfo("Europe/London"))
    at = f'at: "{wall:%Y-%m-%d %H:%M}"'
    _edit(root / "campaigns" / "champions-preview.yaml", {'at: "2026-12-01 09:00"': at, OFFICE_HOURS: ALWAYS})
    wait = f"wait: {sms_wait.total_seconds():.0f}s"
    _edit(
        root / "campaigns" / "winback.yaml",
        {'at: "2026-12-01 10:00"': at, OFFICE_HOURS: ALWAYS, "wait: 3d": wait},
    )


def shorten_retries(root: Path) -> None:
    """Let what a server puts off be tried again within the demo."""
    _edit(root / "carillon.yaml", {"first_retry: 5min": "first_retry: 5s"})


def _edit(path: Path, changes: Mapping[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ConfigError(f"{path.name} should hold {old!r} once; the demo and the example have grown apart")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
