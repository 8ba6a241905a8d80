"""Smoothness of motions whose order a person would agree with."""

from __future__ import annotations

import numpy as np
import pytest

from gatort.sim.trials.smoothness import sparc

TIME_S = np.arange(0, 2, 0.05)


def bell(middle_s: float, width_s: float = 0.3) -> np.ndarray:
    return np.exp(-0.5 * ((TIME_S - middle_s) / width_s) ** 2)


def test_one_stroke_is_smoother_than_two_or_than_one_that_trembles() -> None:
    one = bell(1.0)
    two = bell(0.5, 0.15) + bell(1.5, 0.15)
    trembling, shaking = (one * (1 + a * np.sin(12 * np.pi * TIME_S)) for a in (0.5, 0.9))

    def smooth(speed: np.ndarray) -> float:
        return sparc(speed, 20) or 0.0

    assert smooth(one) == pytest.approx(-1.404, abs=0.001)
    assert smooth(two) < smooth(one)
    assert smooth(shaking) < smooth(trembling) < smooth(one)


def test_neither_speed_nor_unit_counts() -> None:
    assert sparc(3.6 * bell(1.0), 20) == pytest.approx(sparc(bell(1.0), 20))


@pytest.mark.parametrize("speed", [np.zeros(40), np.array([]), np.array([1.0])])
def test_a_motion_that_is_none_has_no_smoothness(speed: np.ndarray) -> None:
    assert sparc(speed, 20) is None
