"""`python -m demo`: the whole way of a campaign on this machine, in about a minute. See `demo.run`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from demo.run import run_demo
from demo.show import Show


def main() -> int:
    """Read the command line, run the demo, return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The demo of Carillon, on this machine only.")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where everything goes (default: .demo)")
    parser.add_argument("--seed", type=int, default=7, help="of the invented shop and its simulated customers")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end (also: KEEP=1)")
    options = parser.parse_args()
    keep = options.keep or os.environ.get("KEEP", "") not in ("", "0")
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        return run_demo(options.folder.resolve(), seed=options.seed, keep=keep, show=Show(console))
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything was stopped.", style="yellow")
        return 130


if __name__ == "__main__":
    sys.exit(main())
