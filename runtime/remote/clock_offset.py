"""Lead of the robot's clock over the controller's, from the stamps of each exchange.

Each answer gives NTP's four stamps (RFC 5905, section 8). The shortest of the last round trips
leaves the least room for a difference between the two ways, so its offset is taken.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from gatort.runtime.durations import Percentiles

EXCHANGES = 64
"""Number of newest exchanges from which the shortest is taken."""
KEPT_ROUND_TRIPS = 72_000
"""Number of round trips kept for statistics: an hour at 20 Hz."""


class ClockOffset:
    """Compares two clocks by the exchanges between them."""

    def __init__(self) -> None:
        self._exchanges: deque[tuple[int, int]] = deque(maxlen=EXCHANGES)
        """Round trip and offset of each of the newest exchanges, in ns."""
        self._round_trips_ns = np.zeros(KEPT_ROUND_TRIPS, np.int64)
        self._measured = 0

    @property
    def ns(self) -> int:
        """Time on the robot's clock minus time on the controller's; 0 before the first exchange."""
        return min(self._exchanges)[1] if self._exchanges else 0

    @property
    def round_trips(self) -> Percentiles:
        """Round trips of the last hour, without the time that the robot took to answer."""
        kept = min(self._measured, KEPT_ROUND_TRIPS)
        return Percentiles.of_ns(self._round_trips_ns[:kept])

    def measure(self, sent_ns: int, received_ns: int, answered_ns: int, arrived_ns: int) -> None:
        """Add one exchange. Stamps that contradict each other are ignored.

        Args:
            sent_ns: when the request left, on the controller's clock.
            received_ns: when it reached the robot, on the robot's clock.
            answered_ns: when the answer left, on the robot's clock.
            arrived_ns: when the answer arrived, on the controller's clock.
        """
        taken_ns = answered_ns - received_ns
        round_trip_ns = arrived_ns - sent_ns - taken_ns
        if taken_ns < 0 or round_trip_ns < 0:
            return

        offset_ns = (received_ns - sent_ns + answered_ns - arrived_ns) // 2
        self._exchanges.append((round_trip_ns, offset_ns))
        self._round_trips_ns[self._measured % KEPT_ROUND_TRIPS] = round_trip_ns
        self._measured += 1
