"""One finding of an examination, a row of `gatort doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the examination."""

    subject: str
    """Examined part of the machine."""
    state: Literal["ok", "absent", "broken"]
    """State of the part: gatort works without an `absent` part, but not with a `broken` one."""
    found: str
    """Description of the part."""
    mend: str = ""
    """Instruction to install or change something; empty when nothing is wrong."""
