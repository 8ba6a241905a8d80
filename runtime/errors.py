"""Errors that gatort raises on purpose.

    GatortError                 one clear sentence: expected, found, valid choices
    ├── ConfigError             a flag, a launch profile or a preset
    ├── SpecError               an observation or action specification, or two that disagree
    ├── ObservationError        an observation that the policy must not see (NaN, wrong shape)
    ├── BundleError             a bundle that is incomplete, changed or of the wrong shape
    ├── DemonstrationError      a demonstration file or set
    ├── EngineError             a forward pass that failed or gave logits that are not finite
    ├── DeviceError             a GPU that failed; its context is lost, so the process has to end
    ├── TakeoverError           a person's device that fell silent while they had the arm
    ├── RecordingError          a recording that cannot be begun or read, or of another program
    ├── RobotError              a robot that refuses to arm or to answer
    │   └── RobotRefusal        a robot that answered, and refuses the controller or its consent
    ├── WorkerError             worker processes that cannot start, or one that was killed
    ├── WireError               bytes that are no message of the protocol
    ├── OutputError             a file or folder that cannot be written
    └── MissingDependency       an optional package, with the line that installs it

The command line prints the sentence and exits with status 2 (exit_status.py).
"""


class GatortError(Exception):
    """Base of every error that gatort raises on purpose."""


class ConfigError(GatortError):
    """A flag, launch profile or preset that is not valid."""


class SpecError(GatortError):
    """A specification that is not valid, or a robot that differs from the bundle."""


class ObservationError(GatortError):
    """An observation with a value that must not reach the policy; names the key."""


class BundleError(GatortError):
    """A bundle that is incomplete, changed since it was written, or of the wrong shape."""


class DemonstrationError(GatortError):
    """A demonstration file that cannot be read or does not match its manifest."""


class TrainingError(GatortError):
    """A training that must not go on: its loss or gradient is not finite."""


class EngineError(GatortError):
    """An engine that cannot be built, a failed pass, or logits that are not finite."""


class DeviceError(GatortError):
    """A GPU that is absent or failed.

    No tick may follow in this process, hence the loop does not catch it.
    """


class TakeoverError(GatortError):
    """A person's device that gives no sign of life while the person has the arm."""


class RecordingError(GatortError):
    """A recording that cannot be begun or read, or a file of another program."""


class RobotError(GatortError):
    """A robot that refuses to arm, or that no longer answers."""


class RobotRefusal(RobotError):  # noqa: N818 the robot is well
    """A robot that answered, and refuses this controller or its consent; it says why."""


class WorkerError(GatortError):
    """Worker processes that cannot be started, or one that was killed."""


class WireError(GatortError):
    """Bytes from the other end of the wire that are no message of the protocol."""


class OutputError(GatortError):
    """A file or folder that cannot be written, or that another process writes."""


class MissingDependency(GatortError):  # noqa: N818 the name says the cause
    """An optional package is absent; the message carries the install line."""
