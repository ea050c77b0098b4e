"""The errors of Carillon, named after what the caller does next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class CarillonError(Exception):
    """Any failure Carillon explains itself; the CLI prints it without a traceback."""


class ConfigError(CarillonError):
    """The operator fixes it: settings, environment, database. Raised at start, never inside a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong in a file somebody wrote.

    Lines and columns count from 1; 0 means the whole file.
    """

    path: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class InputError(CarillonError):
    """The author of a file fixes it. Carries every problem found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.path, p.line, p.column)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Refusal(ValueError):
    """What a model's own check refuses of a file, and where: for checks that look at several values together.

    `at` is the way from the checked value to the one that is wrong.
    """

    def __init__(self, message: str, hint: str = "", *, at: tuple[str | int, ...] = ()) -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint
        self.at = at
        self.others: tuple[Refusal, ...] = ()

    @classmethod
    def all_of(cls, found: Iterable[Refusal]) -> None:
        """Raise the first of several, which carries the others; nothing where there are none."""
        refusals = list(found)
        if refusals:
            refusals[0].others = tuple(refusals[1:])
            raise refusals[0]


class DeliveryError(CarillonError):
    """What became of one message that was not accepted.

    `code` is the basic SMTP or HTTP code (0 if there was none), `enhanced` the RFC 3463 code or "".
    """

    def __init__(self, text: str, *, code: int = 0, enhanced: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.enhanced = enhanced
        self.retry_after_s = retry_after_s


class TransientError(DeliveryError):
    """Not sent: later, no sooner than `retry_after_s`."""


class PermanentError(DeliveryError):
    """Not sent: never."""


class OptedOut(PermanentError):
    """Not sent, never: the person has told the gateway, or its carrier, to send nothing more.

    The words begin with `OPTED_OUT`, by which the flight recorder's copy of them is known again.
    """

    def __init__(self, text: str, *, code: int = 0) -> None:
        super().__init__(f"{OPTED_OUT}{text}", code=code)


OPTED_OUT = "opted out: "


class OutcomeUnknown(DeliveryError):
    """Perhaps sent: never retried by itself."""


class GatewayDown(CarillonError):
    """The gateway as a whole refuses (connection, greeting, log-in, sender policy): no message is to blame.

    `lasting` marks what an operator must mend (wrong password, sender not authenticated).
    """

    def __init__(self, text: str, *, lasting: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.lasting = lasting
        self.retry_after_s = retry_after_s
