"""The report as a file: an e-mail to be looked at, or a page."""

from __future__ import annotations

from pathlib import Path

from kernel.clock import to_ms
from kernel.errors import ConfigError
from kernel.ids import digest
from kernel.settings import Workspace
from reports.content import Report
from reports.mail import compose
from reports.rendering import standalone_page


def write_report(report: Report, workspace: Workspace, path: Path, *, installation: str) -> None:
    """Write a report as FILE.eml or FILE.html.

    Args:
        report: What `gather` returned.
        workspace: Its first sender is whom the e-mail is from, and to.
        path: The ending decides the form.
        installation: This database's own name, for the Message-ID.

    Raises:
        ConfigError: another ending, or the file cannot be written.
    """
    if path.suffix not in (".eml", ".html"):
        raise ConfigError(f"{path} is neither .eml nor .html; name the file for what it is to be")
    sender = next(iter(workspace.settings.senders.values()))
    if path.suffix == ".html":
        data = standalone_page(report).encode()
    else:
        left = digest(report.campaign, str(to_ms(report.now)))[:24]
        domain = sender.email.rpartition("@")[2]
        data = compose(report, workspace, [sender.email], f"<report.{left}.{installation}@{domain}>")
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
