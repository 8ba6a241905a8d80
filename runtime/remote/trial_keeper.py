"""Success in the robot's process. A simulated arm's task tells it, and a real arm's operator does.

After each trial, a simulated task may be laid out anew.
"""

from __future__ import annotations

from collections.abc import Callable

from gatort.runtime.clock import Clock
from gatort.runtime.robots.driver import Driver
from gatort.runtime.safety import STOPPED


class TrialKeeper:
    """Counts a simulated arm's successes and lays its task out anew."""

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

    def report(self) -> str:
        """Answer an operator who reports a success: the task tells it without them."""
        return "not counted: the simulated task tells itself when it is done"

    def _has_just_succeeded(self) -> bool:
        """Check for the first success of this layout: it stays solved until the next one."""
        if self._succeeded or not self._driver.succeeded:
            return False
        self._succeeded = True
        return True


class OperatorTrials:
    """Counts the successes that a real arm's operator reports, at most one each time it is armed.

    `report` may be called from another thread.
    """

    given_up = 0
    """Number of layouts that were replaced without success. Nobody replaces a real one."""

    def __init__(self, driver: Driver) -> None:
        self.successes = 0
        """Number of times that the operator reported a success."""
        self._driver = driver
        self._is_done = False
        self._is_reported = False

    def watch(self) -> None:
        """Count a report, once a turn. A stop ends the trial."""
        is_driven = self._driver.state not in STOPPED
        if self._is_reported and is_driven and not self._is_done:
            self.successes += 1
            self._is_done = True
        self._is_reported = False
        if not is_driven:
            self._is_done = False

    def report(self) -> str:
        """Take an operator's report that the task is done, and return a clause for them."""
        if self._driver.state in STOPPED:
            return "not counted: no controller drives the arm"
        if self._is_done:
            return "counted already: a controller that arms again begins a new trial"
        self._is_reported = True
        return "success, as the operator says"
