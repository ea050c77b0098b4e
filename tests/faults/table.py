"""Writes the table in docs/faults.md from the verdicts in docs/faults.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.faults.matrix import CELLS

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- verdicts: written by make faults -->", "<!-- end of verdicts -->"


def table(told: dict[str, Any]) -> str:
    """Return one row for each cell of the matrix, and a line for every variant that does not hold."""
    verdicts: list[dict[str, Any]] = told["verdicts"]
    lines = [
        "| cell | what is broken | variants | SQLite | PostgreSQL | messages | crashes | in doubt | s | run at |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, words in CELLS.items():
        mine = [verdict for verdict in verdicts if verdict["cell"] == cell]
        sums = [sum(v.get(name, 0) for v in mine) for name in ("messages", "crashes", "in_doubt")]
        numbers = " | ".join(str(number) for number in sums)
        seconds = round(sum(v["seconds"] for v in mine))
        run = ", ".join(sorted({f"{v['at']} {v['commit']}" for v in mine})) or "not run"
        kinds = " | ".join(_verdict([v for v in mine if kind in v["variant"]]) for kind in ("sqlite", "postgresql"))
        lines.append(f"| {cell} | {words} | {len(mine)} | {kinds} | {numbers} | {seconds} | {run} |")
    odd = [v for v in verdicts if v["verdict"] != "holds"]
    lines += ["", "Not holding:" if odd else "Every variant that was run holds."]
    lines += [f"- {v['cell']} `{v['variant']}`: {v['verdict']}: {v.get('words', '')}" for v in odd]
    whole = told.get("whole")
    if whole:
        words = f"{whole['variants']} variants in {whole['minutes']:.0f} minutes on {told['machine']['cores']} cores"
        lines += ["", f"The last run of all in one go: {whole['at']}, {whole['commit']}, {words}."]
    return "\n".join(lines)


def _verdict(verdicts: list[dict[str, Any]]) -> str:
    if not verdicts:
        return "–"
    words = {verdict["verdict"] for verdict in verdicts}
    return next(word for word in ("broken", "impossible here", "holds") if word in words)


def main() -> None:
    """Replace what stands between the marks."""
    told = json.loads((DOCS / "faults.json").read_text(encoding="utf-8"))
    page = DOCS / "faults.md"
    text = page.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    page.write_text(f"{head}{BEGIN}\n\n{table(told)}\n\n{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
