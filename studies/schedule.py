"""The order of a study's trials: every layout is a block in which each variant comes once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

from .design import Design

LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"
"""Letters of a trial's code. Without vowels it is no word."""
CODE_LENGTH: Final = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """A trial that the schedule provides for."""

    number: int
    """Place in the order of the study, from 0."""
    block: int
    """Number of the layout's block, from 0."""
    robot: str
    condition: str
    seed: int
    """Seed of the layout."""
    variant: str
    """Variant that drives. Nobody who labels a trial is told."""
    code: str
    """Name of the trial for the person who labels it. It says nothing of the variant."""


def schedule(design: Design) -> list[Slot]:
    """Return the trials of a study in their order.

    Each round has one new layout for every robot and condition, in a random order. A study with
    more layouts therefore begins like one with fewer.
    """
    cells = design.cells
    slots: list[Slot] = []
    for round_ in range(design.layouts_per_cell):
        random = np.random.default_rng((design.order_seed, round_))
        for cell in random.permutation(len(cells)):
            robot, condition = cells[cell]
            seed = design.first_seed + round_ * len(cells) + int(cell)
            block = len(slots) // len(design.variants)
            slots += [
                Slot(
                    number := block * len(design.variants) + place,
                    block,
                    robot,
                    condition,
                    seed,
                    tuple(design.variants)[variant],
                    _code(design.order_seed, number),
                )
                for place, variant in enumerate(random.permutation(len(design.variants)))
            ]
    return slots


def _code(order_seed: int, number: int) -> str:
    digest = hashlib.sha256(f"{order_seed} {number}".encode()).digest()
    return "".join(LETTERS[byte % len(LETTERS)] for byte in digest[:CODE_LENGTH])
