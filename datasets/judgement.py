"""Mistakes that the values of a data set give away: units, order, rates, swapped keys, colours.

Each check yields sentences with the key, the expectation, the finding and the remedy. `trust` in a
key's table of the mapping silences the checks of that key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gatort.runtime.errors import DemonstrationError

from .evidence import Evidence
from .motion import check_motion, check_stamps
from .ranges import check_ranges
from .reference import check_reference


def judge(evidence: Evidence, reference: Evidence | None, path: Path) -> None:
    """Check the values of a data set.

    Args:
        evidence: values of its episodes.
        reference: values of demonstrations of the same specification, or `None`.
        path: the data set, for the sentence.

    Raises:
        DemonstrationError: the values give a mistake away.
    """
    sentence = next(_findings(evidence, reference), None)
    if sentence is not None:
        raise DemonstrationError(f"{path}: {sentence}")


def _findings(evidence: Evidence, reference: Evidence | None) -> Iterator[str]:
    """Yield a sentence for each mistake, the surest first."""
    yield from check_stamps(evidence)
    yield from check_ranges(evidence)
    yield from check_motion(evidence)
    if reference is not None:
        yield from check_reference(evidence, reference)
