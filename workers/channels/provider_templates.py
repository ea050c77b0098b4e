"""SMS by a template that lies with the provider: our text gives its values, one `name: value` a line.

In mainland China a provider sends approved templates only, and never a free text. An SMS template of ours for such a
gateway reads

    template: SMS_15305
    name: {{ contact.first_name }}
    offer: T-10

The first line may be left out where the gateway names a template itself. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel.errors import PermanentError, TransientError

_LINE = re.compile(r"([A-Za-z0-9_]{1,40})[ \t]*:[ \t]*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A provider's template and its values, in the order of the lines."""

    template: str
    values: dict[str, str]

    def in_order(self) -> list[str]:
        """Return the values of a template whose variables have numbers.

        Raises:
            PermanentError: the names are not 1, 2, 3 and so on.
        """
        if list(self.values) != [str(number) for number in range(1, len(self.values) + 1)]:
            raise PermanentError(f"the values must be called 1, 2, 3 in this order, not {', '.join(self.values)}")
        return list(self.values.values())


def read_filled(text: str, default: str | None) -> Filled:
    """Return what a rendered text fills in.

    A value that holds a line end could pass for further lines; a name given twice or none at all is refused, so that
    no contact's data gets into another's place.

    Args:
        text: The composed SMS.
        default: The gateway's own template, if it names one.

    Raises:
        PermanentError: a line is not `name: value`, or a name stands twice.
        TransientError: nobody names a template: an operator can mend that in carillon.yaml.
    """
    template, values = default, {}
    for number, line in enumerate(text.split("\n")):
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise PermanentError(f"this gateway fills templates: line {number + 1} of the SMS is not `name: value`")
        name, value = found[1], found[2].strip()
        if name == "template" and number == 0:
            template = value
        elif name in values or name == "template":
            raise PermanentError(f"this gateway fills templates: {name!r} stands twice in the SMS")
        else:
            values[name] = value
    if not template:
        raise TransientError(
            "no template named: begin the SMS with `template: …`, or set `template` of the gateway in carillon.yaml"
        )
    return Filled(template=template, values=values)
