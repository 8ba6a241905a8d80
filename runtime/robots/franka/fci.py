"""Requests to a Franka arm: the TCP side of the Franka Control Interface, protocol 10.

The states and torques of the 1 kHz cycle go over UDP, in `fci_loop.c`. Source of the records:
`service_types.h` and `error.h` of libfranka-common.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Final

from gatort.runtime.errors import RobotError

PORT: Final = 1337
VERSION: Final = 10
CONNECT_S: Final = 3.0
"""Longest wait for a connection."""
ANSWER_S: Final = 1.0
"""Longest wait for an answer."""
RECOVERY_S: Final = 10.0
"""Longest wait for the end of a recovery."""
LONGEST_ANSWER: Final = 4_000_000
"""Largest answer in bytes: the arm's model is one."""
_HEADER: Final = struct.Struct("<III")
"""Number of the command, number of the request, bytes of the whole message."""
_MOVE: Final = struct.Struct("<II3d3d?7d")

FREELY: Final = (10.0, 3.12, 6.28)
"""Deviations from a path that stop no torque control: m, rad, rad (as libfranka asks for)."""


class Ask(IntEnum):
    """Commands of the interface that this driver uses."""

    CONNECT = 0
    MOVE = 1
    SET_COLLISION_BEHAVIOR = 3
    SET_LOAD = 9
    RECOVER = 10
    MODEL = 11


class Mode(IntEnum):
    """Modes of an arm."""

    OTHER = 0
    IDLE = 1
    MOVE = 2
    GUIDING = 3
    REFLEX = 4
    USER_STOPPED = 5
    RECOVERING = 6


EXTERNAL_CONTROLLER: Final = 2
NO_GENERATOR: Final = 4
SUCCESS: Final = 0
MOTION_STARTED: Final = 1
OTHER_VERSION: Final = 1

_MOVE_REFUSALS: Final = {
    2: "another motion took its place",
    3: "a safety function of the arm took its place",
    4: "a safety function of the arm is active; switch it off in Desk",
    5: "not possible in the arm's present mode",
    6: "the arm is at a singular pose",
    7: "an argument is invalid",
    8: "a reflex ended it",
    9: "the user stop is pressed",
    10: "an input was invalid",
    11: "it was ended",
}
_RECOVERY_REFUSALS: Final = {
    1: "not possible in the arm's present mode",
    2: "a safety function of the arm is active; switch it off in Desk",
    3: "the arm must be recovered by hand in Desk",
    4: "a reflex ended it",
    5: "the user stop is pressed",
    6: "it was ended",
}
_SETTING_REFUSALS: Final = {
    1: "not possible in the arm's present mode",
    2: "a value is out of range",
    3: "a safety function of the arm is active; switch it off in Desk",
}

ERRORS: Final = (
    "joint_position_limits_violation",
    "cartesian_position_limits_violation",
    "self_collision_avoidance_violation",
    "joint_velocity_violation",
    "cartesian_velocity_violation",
    "force_control_safety_violation",
    "joint_reflex",
    "cartesian_reflex",
    "max_goal_pose_deviation_violation",
    "max_path_pose_deviation_violation",
    "cartesian_velocity_profile_safety_violation",
    "joint_position_motion_generator_start_pose_invalid",
    "joint_motion_generator_position_limits_violation",
    "joint_motion_generator_velocity_limits_violation",
    "joint_motion_generator_velocity_discontinuity",
    "joint_motion_generator_acceleration_discontinuity",
    "cartesian_position_motion_generator_start_pose_invalid",
    "cartesian_motion_generator_elbow_limit_violation",
    "cartesian_motion_generator_velocity_limits_violation",
    "cartesian_motion_generator_velocity_discontinuity",
    "cartesian_motion_generator_acceleration_discontinuity",
    "cartesian_motion_generator_elbow_sign_inconsistent",
    "cartesian_motion_generator_start_elbow_invalid",
    "force_controller_desired_force_tolerance_violation",
    "start_elbow_sign_inconsistent",
    "communication_constraints_violation",
    "power_limit_violation",
    "cartesian_motion_generator_joint_position_limits_violation",
    "cartesian_motion_generator_joint_velocity_limits_violation",
    "cartesian_motion_generator_joint_velocity_discontinuity",
    "cartesian_motion_generator_joint_acceleration_discontinuity",
    "cartesian_position_motion_generator_invalid_frame",
    "controller_torque_discontinuity",
    "joint_p2p_insufficient_torque_for_planning",
    "tau_j_range_violation",
    "instability_detected",
    "joint_move_in_wrong_direction",
    "cartesian_spline_motion_generator_violation",
    "joint_via_motion_generator_planning_joint_limit_violation",
    "base_acceleration_initialization_timeout",
    "base_acceleration_invalid_reading",
)
"""Names of the arm's errors, as libfranka gives them, in the order of their bits."""


def link_lost(cause: str) -> RobotError:
    """Return the error for a link that broke, with the remedy."""
    return RobotError(
        f"the link to the arm was lost: {cause}; look at the cable, the control box and whatever "
        "keeps this computer busy, then start `gatort robot` again"
    )


def errors_named(bits: int) -> str:
    """Return the names of the errors whose bits are set, with commas between them."""
    return ", ".join(name for place, name in enumerate(ERRORS) if bits >> place & 1)


class RefusalError(RobotError):
    """The arm refused a request."""


def require_address(address: str) -> None:
    """Check that an address of a control box can be one.

    Raises:
        RobotError: it is no IP address, and no name of a computer.
    """
    try:
        socket.getaddrinfo(address, PORT)
    except (OSError, UnicodeError) as error:
        raise RobotError(
            "a Franka arm: expected the IP address of its control box, such as 172.16.0.2, "
            f"found {address!r}"
        ) from error


class Fci:
    """The connection to one arm. It is the arm's only one: a second client would wait."""

    def __init__(self, address: str) -> None:
        """Connect.

        Raises:
            RobotError: nobody answers there, or the arm speaks another version of the protocol.
        """
        self._requests = 0
        self._answers: dict[int, bytes] = {}
        self._received = bytearray()
        self._motion: int | None = None
        """Request of the motion that was started and whose end was not told yet."""
        try:
            self.tcp = socket.create_connection((address, PORT), CONNECT_S)
        except OSError as error:
            raise RobotError(
                f"no Franka arm answers at {address}: {error.strerror or error}; expected the "
                "address of the control box, and its control interface (FCI) activated in Desk"
            ) from error
        self.tcp.settimeout(None)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.udp.bind((self.tcp.getsockname()[0], 0))
            self._shake_hands(address)
        except BaseException:
            self.close()
            raise

    def _shake_hands(self, address: str) -> None:
        port: int = self.udp.getsockname()[1]
        try:
            answer = self._ask(Ask.CONNECT, struct.pack("<HH", VERSION, port), ANSWER_S)
        except TimeoutError as error:
            raise RobotError(
                f"the Franka arm at {address} does not answer: another program may hold its "
                "control interface; end that program"
            ) from error
        status, version = struct.unpack_from("<BH", answer.ljust(3, b"\0"))
        if status == OTHER_VERSION or version != VERSION:
            raise RobotError(
                f"the Franka arm at {address} speaks protocol {version}, expected {VERSION}: this "
                "driver is for an FR3 whose system is 5.9.0 or newer, and for no Panda"
            )

    # -- Requests ------------------------------------------------------------------------------

    def model(self) -> str:
        """Return the arm's model as URDF.

        Raises:
            RobotError: the arm does not give it.
        """
        answer = self._ask_in_time(Ask.MODEL, b"", ANSWER_S)
        self._require(answer[0], _SETTING_REFUSALS, "the request for its model")
        return answer[1:].decode(errors="replace")

    def set_collision_thresholds(self, torques_nm: Sequence[float], force_n: float) -> None:
        """Set the external torques (7,) and the force at which the arm stops itself.

        Raises:
            RefusalError: the arm refused them.
        """
        payload = struct.pack("<28d24d", *torques_nm, *torques_nm, *torques_nm, *torques_nm,
                              *(force_n,) * 24)  # fmt: skip
        answer = self._ask_in_time(Ask.SET_COLLISION_BEHAVIOR, payload, ANSWER_S)
        self._require(answer[0], _SETTING_REFUSALS, "the thresholds of contact")

    def set_load(self, mass_kg: float, centre_m: Sequence[float]) -> None:
        """Set a load beyond the hand, and its centre in the flange's frame.

        Raises:
            RefusalError: the arm refused it.
        """
        payload = struct.pack("<13d", mass_kg, *centre_m, *(0.0,) * 9)
        answer = self._ask_in_time(Ask.SET_LOAD, payload, ANSWER_S)
        self._require(answer[0], _SETTING_REFUSALS, "the load")

    def recover(self) -> None:
        """Recover the arm after a reflex.

        Raises:
            RefusalError: the arm could not be recovered.
        """
        answer = self._ask_in_time(Ask.RECOVER, b"", RECOVERY_S)
        self._require(answer[0], _RECOVERY_REFUSALS, "its recovery")

    def start_torque_control(self) -> None:
        """Ask the arm to take torques. It does once its states say so.

        Raises:
            RefusalError: the arm refused.
        """
        # An end of the last motion that was not told meanwhile never comes.
        self._motion = None
        payload = _MOVE.pack(
            EXTERNAL_CONTROLLER, NO_GENERATOR, *FREELY, *FREELY, False, *(0.0,) * 7
        )
        answer = self._ask_in_time(Ask.MOVE, payload, ANSWER_S)
        if answer[0] != MOTION_STARTED:
            self._require(answer[0], _MOVE_REFUSALS, "torque control")
        self._motion = self._requests

    def motion_ended(self) -> bool:
        """Check if no motion is under way. It does not wait."""
        if self._motion is not None:
            self._receive()
            if self._answers.pop(self._motion, None) is not None:
                self._motion = None
        return self._motion is None

    @staticmethod
    def _require(status: int, refusals: dict[int, str], what: str) -> None:
        if status != SUCCESS:
            why = refusals.get(status, f"status {status}, which protocol {VERSION} does not know")
            raise RefusalError(f"the arm refused {what}: {why}")

    # -- Messages ------------------------------------------------------------------------------

    def _ask_in_time(self, ask: Ask, payload: bytes, within_s: float) -> bytes:
        try:
            return self._ask(ask, payload, within_s)
        except TimeoutError as error:
            name = ask.name.lower().replace("_", " ")
            raise RobotError(
                f"the arm did not answer a request ({name}) within {within_s:g} s"
            ) from error

    def _ask(self, ask: Ask, payload: bytes, within_s: float) -> bytes:
        """Send a request and return its answer without the header.

        Raises:
            TimeoutError: no answer came in time.
            RobotError: the connection was lost.
        """
        self._requests += 1
        try:
            self.tcp.sendall(_HEADER.pack(ask, self._requests, 12 + len(payload)) + payload)
        except OSError as error:
            raise link_lost(error.strerror or str(error)) from error
        while self._requests not in self._answers:
            if not select.select([self.tcp], [], [], within_s)[0]:
                raise TimeoutError
            self._receive()
        return self._answers.pop(self._requests)

    def _receive(self) -> None:
        """Take the answers that have arrived.

        Raises:
            RobotError: the connection was lost, or an answer is none of this protocol.
        """
        with suppress(BlockingIOError):
            while True:
                try:
                    chunk = self.tcp.recv(65_536, socket.MSG_DONTWAIT)
                except ConnectionError as error:
                    raise link_lost(error.strerror or str(error)) from error
                if not chunk:
                    raise link_lost("the control box closed it")
                self._received += chunk
        while len(self._received) >= _HEADER.size:
            _, request, size = _HEADER.unpack_from(self._received)
            if not _HEADER.size < size <= LONGEST_ANSWER:
                raise link_lost(
                    f"expected an answer of {_HEADER.size + 1} to {LONGEST_ANSWER} bytes, found "
                    f"{size}"
                )
            if len(self._received) < size:
                return
            self._answers[request] = bytes(self._received[_HEADER.size : size])
            del self._received[:size]

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self.tcp.close()
        self.udp.close()
