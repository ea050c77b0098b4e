"""A real Postfix of our own: on loopback ports nobody else uses, in a folder of its own; the system's is left alone."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.outside.programs import absent, program

DOMAIN = "customer.example"
"""Mail to user<n>@ this domain is delivered; to anybody else it is taken and bounced later."""
_NOBODY = 65534

_MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
daemon_directory = {daemons}
command_directory = {commands}
maillog_file = {root}/mail.log
maillog_file_prefixes = {root}
myhostname = mx.customer.example
mydestination =
alias_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_dns_support_level = disabled
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_reject_unlisted_recipient = no
smtpd_client_connection_count_limit = 0
smtputf8_autodetect_classes = all
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = regexp:{root}/etc/users
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
transport_maps = inline:{{ {{ {bounce_domain} = smtp:[127.0.0.1]:{bounce_port} }} }}
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
virtual   unix  -       n       n       -       -       virtual
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Postfix:
    """A running instance."""

    root: Path
    port: int

    @property
    def mail_log(self) -> Path:
        """What it logs, as in /var/log/mail.log."""
        return self.root / "mail.log"

    def delivered(self) -> list[bytes]:
        """Return every mail in the Maildir."""
        folder = self.root / "mail" / "inbox" / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []

    def log(self) -> str:
        return self.mail_log.read_text(encoding="utf-8", errors="replace") if self.mail_log.exists() else ""


@contextmanager
def running_postfix(*, bounce_domain: str, bounce_port: int) -> Iterator[Postfix]:
    """Run an instance that hands bounces for `bounce_domain` to a port of 127.0.0.1."""
    postfix = program("postfix", debian="postfix")
    if os.getuid() != 0:
        absent("Postfix starts as root alone; run these tests as root, in a container")
    # Not under pytest's own folder, which only root may enter: Postfix delivers as somebody else.
    root = Path(tempfile.mkdtemp(prefix="carillon-postfix-"))
    root.chmod(0o755)
    instance = Postfix(root=root, port=_free_port())
    config = _configure(instance, postfix, bounce_domain, bounce_port)
    try:
        _command(postfix, config, "start")
        _wait_until_it_answers(instance)
        yield instance
    finally:
        _command(postfix, config, "stop")
        shutil.rmtree(root, ignore_errors=True)


def _configure(instance: Postfix, postfix: str, bounce_domain: str, bounce_port: int) -> Path:
    root, config = instance.root, instance.root / "etc"
    for folder in ("etc", "queue", "data", "mail"):
        (root / folder).mkdir()
    owner = pwd.getpwnam("postfix")
    os.chown(root / "data", owner.pw_uid, owner.pw_gid)
    os.chown(root / "mail", _NOBODY, _NOBODY)
    daemons = subprocess.run(
        [program("postconf", debian="postfix"), "-dh", "daemon_directory"], capture_output=True, text=True, check=True
    ).stdout.strip()
    values = {
        "root": root,
        "port": instance.port,
        "daemons": daemons,
        "commands": Path(postfix).parent,
        "domain": DOMAIN,
        "nobody": _NOBODY,
        "bounce_domain": bounce_domain,
        "bounce_port": bounce_port,
    }
    (config / "main.cf").write_text(_MAIN.format(**values), encoding="utf-8")
    (config / "master.cf").write_text(_MASTER.format(**values), encoding="utf-8")
    (config / "users").write_text(f"/^user[0-9]+@{DOMAIN.replace('.', '[.]')}$/ inbox/\n", encoding="utf-8")
    return config


def _command(postfix: str, config: Path, verb: str) -> None:
    done = subprocess.run([postfix, "-c", str(config), verb], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"postfix {verb}: {done.stdout}{done.stderr}"


def _wait_until_it_answers(instance: Postfix) -> None:
    ends = time.monotonic() + 20
    while True:
        try:
            with socket.create_connection(("127.0.0.1", instance.port), timeout=5) as door:
                if door.recv(4) == b"220 ":
                    return
        except OSError:
            pass
        assert time.monotonic() < ends, instance.log()
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
