"""What one rendering may spend: characters, loop turns and calls are paid from one budget."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError

MAX_OUTPUT = 2_000_000
"""Characters an e-mail body may have, and the budget of loops and calls that make it."""
TURN_COST = 40
"""What a loop turn or a call costs of the budget, in characters: 50,000 of them use up an e-mail's."""
MAX_RANGE = 1_000
MAX_TEXT = 100_000
"""Characters of one value built in a template."""


class Rendering:
    """What is spent and known while one part of one message is rendered.

    What most renderings leave as it is stands in the class: three are made for each message.
    """

    limit = MAX_OUTPUT
    one_line = False
    """Set for subjects: a value with a line break or another control character is refused."""
    spent = 0
    bare: Callable[[str], str] | None = None
    """Makes the links that stand in a text tracked ones, where they are tracked piece by piece."""
    wide = 0
    """Octets beyond ASCII that values held, which may make another encoding the better one."""

    def __init__(self, variables: dict[str, Any], link: Callable[[str], str]) -> None:
        self.variables = variables
        self.link = link

    @classmethod
    def limited(
        cls, variables: dict[str, Any], link: Callable[[str], str], limit: int, *, one_line: bool = False
    ) -> Rendering:
        """Return a rendering that may spend `limit` only."""
        made = cls(variables, link)
        made.limit = limit
        made.one_line = one_line
        return made

    def charge(self, units: int) -> None:
        """Pay from the budget. Raises SecurityError where it is used up."""
        self.spent += units
        if self.spent > self.limit:
            raise SecurityError(
                f"it makes more than {self.limit:,} characters or {self.limit // TURN_COST:,} loop turns and calls"
            )


RENDERING: ContextVar[Rendering | None] = ContextVar("carillon_rendering", default=None)
"""The rendering that goes on in this thread; none while templates are compiled."""


def charge(units: int) -> None:
    """Pay from the budget of the present rendering; free while compiling, where sizes are those of the source."""
    rendering = RENDERING.get()
    if rendering is not None:
        rendering.charge(units)


def capped(value: Any) -> Any:
    """Return the value, charged for where it is a text. Raises SecurityError where that is too long."""
    if isinstance(value, str):
        charge(len(value))
        if len(value) > MAX_TEXT:
            raise SecurityError(f"a text built in a template may have {MAX_TEXT:,} characters, not {len(value):,}")
    return value
