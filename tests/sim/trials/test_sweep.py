"""Values of a sweep."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gatort.runtime.remote.link import LinkConditions
from gatort.sim.trials.sweep import VALUES, Axis, conditions_along


@pytest.mark.parametrize("axis", VALUES)
def test_each_sweep_starts_from_a_perfect_link_and_keeps_the_other_conditions(axis: Axis) -> None:
    link = LinkConditions() if axis == "loss" else LinkConditions(loss=0.01)
    links = conditions_along(link, axis, None)
    assert len(links) == len(VALUES[axis])
    assert links[0] == link
    assert all(each.loss == 0.01 for each in links) == (axis != "loss")


def test_a_value_that_no_link_has_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        conditions_along(LinkConditions(), "loss", [0, 2])
