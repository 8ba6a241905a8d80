"""Trials of a simulated arm in the robot's process: when one has ended, and laying out the next."""

from __future__ import annotations

from collections.abc import Callable

from gatort.runtime.clock import Clock
from gatort.runtime.robots.driver import Driver
from gatort.runtime.safety import STOPPED


class TrialKeeper:
    """Counts a simulated arm's successes and lays its task out anew. A real arm has none."""

    def __init__(
        self,
        driver: Driver,
        clock: Clock,
        next_trial: Callable[[], None] | None = None,
        longest_ns: int | None = None,
    ) -> None:
        """Begin the first trial.

        Args:
            driver: the simulated arm.
            clock: the arm's clock.
            next_trial: lays the task out anew. When absent, only successes are counted.
            longest_ns: longest time that the armed arm may try one layout. When absent, it may try
                for ever.
        """
        self.successes = 0
        """Number of times that the task succeeded. A layout counts once."""
        self.given_up = 0
        """Number of layouts that were replaced without success."""
        self._driver = driver
        self._clock = clock
        self._next_trial = next_trial
        self._longest_ns = longest_ns
        self._began_ns = clock.now_ns()
        self._succeeded = False

    def watch(self) -> None:
        """Look at the arm, once a turn.

        Begin a new trial after a success, or after `longest_ns` without one.
        """
        now_ns = self._clock.now_ns()
        if self._driver.state in STOPPED:
            self._began_ns = now_ns

        succeeded = self._has_just_succeeded()
        if succeeded:
            self.successes += 1
        if self._next_trial is None:
            return

        given_up = self._longest_ns is not None and now_ns - self._began_ns > self._longest_ns
        if given_up and not succeeded:
            self.given_up += 1
        if given_up or succeeded:
            self._next_trial()
            self._succeeded = False
            self._began_ns = now_ns

    def _has_just_succeeded(self) -> bool:
        """Check for the first success of this layout: it stays solved until the next one."""
        if self._succeeded or not self._driver.succeeded:
            return False
        self._succeeded = True
        return True
