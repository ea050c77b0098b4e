"""A real Dovecot of our own: IMAP on a loopback port nobody else uses, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.outside.programs import absent, program

USERNAME, PASSWORD = "bounces@acme.example", "secret-of-the-mailbox"
_NOBODY = 65534
_CONFIG = """\
base_dir = {root}/run
state_dir = {root}/state
libexec_dir = {libexec}
mail_plugin_dir = {libexec}/modules
auth_mechanisms = plain login
disable_plaintext_auth = no
ssl = no
listen = 127.0.0.1
protocols = imap
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
log_path = {root}/dovecot.log
mail_location = maildir:{root}/mail
first_valid_uid = 1
namespace inbox {{
  inbox = yes
  separator = /
  mailbox Done {{
    auto = create
  }}
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={nobody} gid={nobody} home={root}/home
}}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service stats {{
  chroot =
}}
"""


@dataclass
class Dovecot:
    """A running instance."""

    root: Path
    port: int

    def deliver(self, raw: bytes, name: str) -> None:
        """Put a mail into the inbox, as a delivery agent does: whole from the first moment it is seen."""
        half = self.root / "mail" / "tmp" / name
        half.write_bytes(raw)
        os.chown(half, _NOBODY, _NOBODY)
        half.rename(self.root / "mail" / "new" / name)

    def mails(self, folder: str = "") -> list[Path]:
        """Return what lies in a folder; the inbox by default."""
        base = self.root / "mail" / (f".{folder}" if folder else "")
        return sorted(path for part in ("new", "cur") for path in (base / part).glob("*"))

    def log(self) -> str:
        """Return what it wrote into its log."""
        path = self.root / "dovecot.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


@contextmanager
def running_dovecot() -> Iterator[Dovecot]:
    """Run Dovecot; skip (in CI: fail) where it is absent or may not start."""
    dovecot = program("dovecot", debian="dovecot-imapd")
    if os.geteuid() != 0:
        absent("Dovecot switches users and starts as root alone; run `sudo make test-outside`")
    root = Path(tempfile.mkdtemp(prefix="carillon-dovecot-"))
    root.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        instance = Dovecot(root=root, port=int(probe.getsockname()[1]))
    for folder in ("mail/new", "mail/cur", "mail/tmp", "home", "run", "state"):
        (root / folder).mkdir(parents=True)
    for folder in ("mail", "mail/new", "mail/cur", "mail/tmp", "home"):
        os.chown(root / folder, _NOBODY, _NOBODY)
    libexec = Path(dovecot).resolve().parent.parent / "lib" / "dovecot"
    config = root / "dovecot.conf"
    config.write_text(
        _CONFIG.format(root=root, port=instance.port, libexec=libexec, password=PASSWORD, nobody=_NOBODY),
        encoding="utf-8",
    )
    process = subprocess.Popen([dovecot, "-F", "-c", str(config)], stderr=subprocess.PIPE)
    try:
        _wait_until_it_answers(instance, process)
        yield instance
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        shutil.rmtree(root, ignore_errors=True)


def _wait_until_it_answers(instance: Dovecot, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as door:
                if door.recv(4) == b"* OK":
                    return
        except OSError:
            pass
        assert process.poll() is None, instance.log()
        assert time.monotonic() < ends, instance.log()
        time.sleep(0.05)
