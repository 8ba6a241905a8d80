"""Facts about an arm, for its operator before consent."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MOST_FACTS = 32
"""Most facts that one arm tells."""
LONGEST_FACT = 256
"""Most characters of each text of a fact."""
STATE = "state"
"""Name of the fact on the watchdog's state. It needs attention while the arm refuses consent."""

_Text = Annotated[str, Meta(max_length=LONGEST_FACT)]


class Fact(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One row of the checklist."""

    name: _Text
    """Part or setting, in one to three words."""
    value: _Text
    """State of the part, or value of the setting with its unit."""
    attention: _Text = ""
    """Sentence that asks for the operator's attention; empty where all is good."""


def bounded(facts: tuple[Fact, ...]) -> list[Fact]:
    """Return the facts that fit into one message, each text cut to its bound."""
    return [
        Fact(*(text[:LONGEST_FACT] for text in (each.name, each.value, each.attention)))
        for each in facts[:MOST_FACTS]
    ]
