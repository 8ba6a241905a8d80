"""A sensor's stream over ZeroMQ: the newest values arrive, and bad messages change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
import zmq
from tests.waiting import eventually

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.errors import ConfigError, RobotError
from gatort.runtime.robots.sensors.readings import LARGEST_BYTES, encode
from gatort.runtime.robots.sensors.sockets import SensorPublisher, Subscription

CLOCK = MonotonicClock()
ANY_PORT = "tcp://127.0.0.1:0"
UNSUBSCRIBED = b"\0"
"""Message by which ZeroMQ tells a publisher that its last subscriber has left."""


@pytest.fixture
def publisher() -> Iterator[zmq.Socket[bytes]]:
    """A publisher that sends any bytes, and is told of its subscribers."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.XPUB)
    socket.set(zmq.LINGER, 0)
    socket.bind(ANY_PORT)
    yield socket
    socket.close()
    context.term()


@pytest.fixture
def subscription(publisher: zmq.Socket[bytes]) -> Iterator[Subscription]:
    """A subscription that has one reading."""
    made = Subscription(publisher.get_string(zmq.LAST_ENDPOINT), CLOCK)

    def connected() -> bool:
        publisher.send(encode(1, {"force": [0.5]}))
        return bool(made.update())

    eventually(connected)
    yield made
    made.close()


def test_published_values_arrive_with_their_stamps() -> None:
    sensor = SensorPublisher(ANY_PORT)
    subscription = Subscription(sensor.address, CLOCK)
    try:

        def arrived() -> bool:
            sensor.publish(7, {"pose/red": [1.0, 2.0], "edge/red": [0.05]})
            return bool(subscription.update())

        eventually(arrived)
        reading = subscription.update()["pose/red"]
        assert reading.value.tolist() == [1.0, 2.0]
        assert reading.stamp_ns == subscription.stamp_ns == 7
    finally:
        subscription.close()
        sensor.close()


def test_a_value_that_is_not_measured_any_more_keeps_its_stamp(
    publisher: zmq.Socket[bytes], subscription: Subscription
) -> None:
    publisher.send(encode(20, {"torque": [1.0]}))
    eventually(lambda: "torque" in subscription.update())
    readings = subscription.update()
    assert readings["force"].stamp_ns == 1
    assert readings["torque"].stamp_ns == subscription.stamp_ns == 20


@pytest.mark.parametrize(
    "bad",
    [
        b"no JSON",
        encode(0, {"force": [9.0]}),
        encode(CLOCK.now_ns() + 3_600_000_000_000, {"force": [9.0]}),
        b'{"stamp_ns": 30, "values": {"force": [NaN]}}',
    ],
    ids=["not JSON", "a stamp that goes back", "a stamp of the future", "not a number"],
)
def test_a_bad_message_is_counted_and_changes_nothing(
    bad: bytes, publisher: zmq.Socket[bytes], subscription: Subscription
) -> None:
    publisher.send(bad)
    eventually(lambda: bool(subscription.update()) and subscription.malformed > 0)
    assert subscription.update()["force"].value.tolist() == [0.5]
    assert subscription.stamp_ns == 1


def test_a_slower_camera_tells_what_a_faster_one_has_not_seen(
    publisher: zmq.Socket[bytes], subscription: Subscription
) -> None:
    publisher.send(encode(40, {"force": [4.0], "edge": [0.05]}))
    publisher.send(encode(20, {"force": [2.0], "edge": [0.05], "torque": [2.0]}))
    eventually(lambda: "torque" in subscription.update())
    seen = {
        name: (each.value.tolist(), each.stamp_ns) for name, each in subscription.update().items()
    }
    assert (seen["force"], seen["torque"]) == (([4.0], 40), ([2.0], 20))
    assert (subscription.stamp_ns, subscription.malformed) == (40, 0)


def test_a_message_that_is_too_long_costs_the_sensor_its_subscriber(
    publisher: zmq.Socket[bytes], subscription: Subscription
) -> None:
    publisher.send(b" " * (LARGEST_BYTES + 1))
    left: list[bytes] = []

    def has_left() -> bool:
        with suppress(zmq.Again):
            left.append(publisher.recv(zmq.NOBLOCK))
        return UNSUBSCRIBED in left

    eventually(has_left)
    assert subscription.update()["force"].value.tolist() == [0.5]


def test_names_without_end_do_not_fill_the_memory(
    publisher: zmq.Socket[bytes], subscription: Subscription
) -> None:
    for part in range(8):
        publisher.send(encode(50 + part, {f"{part}/{index}": [0.0] for index in range(60)}))
    eventually(lambda: bool(subscription.update()) and subscription.stamp_ns == 57)
    assert len(subscription.update()) == 256


def test_a_sensor_that_says_nothing_is_named() -> None:
    subscription = Subscription("tcp://127.0.0.1:1", CLOCK)
    try:
        with pytest.raises(RobotError, match=r"sensor at tcp://127\.0\.0\.1:1 .* found nothing"):
            subscription.wait(0.05)
    finally:
        subscription.close()


def test_a_port_that_is_taken_is_refused() -> None:
    sensor = SensorPublisher(ANY_PORT)
    try:
        with pytest.raises(ConfigError, match="choose another port"):
            SensorPublisher(sensor.address)
    finally:
        sensor.close()
