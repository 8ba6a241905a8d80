"""The checklist on the screen: marks, and 80 columns."""

from __future__ import annotations

import io

from rich.console import Console

from gatort.launch.report import fact_table
from gatort.runtime.facts import LONGEST_FACT, Fact


def printed(*facts: Fact, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(fact_table(facts))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_a_good_row_is_ok_and_another_has_its_sentence_below_the_value() -> None:
    assert printed(Fact("load", "0.4 kg"), Fact("disk", "0.3 GB", "free some")) == [
        "ok  load  0.4 kg",
        "!   disk  0.3 GB",
        "          free some",
    ]


def test_the_longest_facts_keep_to_80_columns_and_lose_nothing() -> None:
    value, attention = "v" * LONGEST_FACT, "a" * LONGEST_FACT
    lines = printed(Fact("camera/wrist", value, attention))
    assert max(map(len, lines)) <= 80
    text = "".join(line[16:].strip() for line in lines)
    assert text == value + attention
