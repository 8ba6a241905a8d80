from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from gatort.runtime.errors import ObservationError, SpecError
from gatort.runtime.spec import Interface, ObservationKey, PolicySpec, select_keys

EXTRA = ObservationKey(name="arm/extra", shape=(4,), dtype="float32", unit="1", encoding="mu_law")


def robot_like(spec: PolicySpec, **changes: object) -> Interface:
    fields = {name: getattr(spec, name) for name in Interface.model_fields}
    return Interface(**{**fields, **changes})


def test_a_policy_reads_its_own_keys_of_a_robot_that_offers_more(spec: PolicySpec) -> None:
    robot = robot_like(spec, observations=(*spec.observations, EXTRA))
    values = [np.full(key.shape, index, key.dtype) for index, key in enumerate(robot.observations)]
    selection = select_keys(spec, robot)
    selected = selection.select(values)
    names = [robot.observations[int(value.flat[0])].name for value in selected]
    assert names == [key.name for key in spec.observations]
    assert all(any(value is offered for offered in values) for value in selected)


@pytest.mark.parametrize("arrays", [0, 1, 3])
def test_an_observation_with_too_many_or_too_few_arrays_is_refused(
    spec: PolicySpec, arrays: int
) -> None:
    selection = select_keys(spec, robot_like(spec))
    with pytest.raises(
        ObservationError, match=f"expected an observation of 2 arrays, found {arrays}"
    ):
        selection.select([np.zeros(3, np.float32)] * arrays)


def test_a_robot_without_one_of_the_policys_keys_is_refused_by_its_name(spec: PolicySpec) -> None:
    robot = robot_like(spec, observations=spec.observations[:1])
    with pytest.raises(SpecError, match=r"'arm/velocity'.*offers arm/position$"):
        select_keys(spec, robot)


@pytest.mark.parametrize(
    ("field", "value"), [("control_hz", 10), ("action_delay_ms", 30), ("actuators", None)]
)
def test_a_robot_of_another_time_or_with_other_actuators_is_refused(
    spec: PolicySpec, field: str, value: object
) -> None:
    changed = spec.actuators[:1] if field == "actuators" else value
    with pytest.raises(SpecError, match=f"{field}: the policy"):
        select_keys(spec, robot_like(spec, **{field: changed}))


def test_a_key_in_another_unit_is_refused_with_both_units(spec: PolicySpec) -> None:
    first, second = spec.observations
    degrees = first.model_copy(update={"unit": "deg"})
    robot = robot_like(spec, observations=(degrees, second))
    with pytest.raises(SpecError, match=r"'arm/position': the policy expects unit rad.*has deg"):
        select_keys(spec, robot)


def test_a_changed_copy_is_checked_and_keeps_nothing_that_was_cached(spec: PolicySpec) -> None:
    before = spec.observation_tokens
    first, second = spec.observations
    copy = spec.model_copy(update={"observations": (EXTRA, second, first)})
    assert [key.name for key in copy.observations] == sorted(
        key.name for key in (first, second, EXTRA)
    )
    assert copy.observation_tokens == before + EXTRA.tokens
    with pytest.raises(ValidationError, match="window_frames"):
        spec.model_copy(update={"window_frames": 0})
