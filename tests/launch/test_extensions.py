"""A robot and a task of another installed package, from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gatort.launch import cli
from gatort.runtime.clock import MonotonicClock
from gatort.runtime.demonstrations import load_manifest
from gatort.runtime.errors import ConfigError
from gatort.runtime.extensions import load_named
from gatort.runtime.remote.client import RemoteRobot
from gatort.runtime.safety import State
from gatort.sim.tasks import task_named
from gatort.sim.tasks.task import Task

EXAMPLES = Path(__file__).parents[2] / "examples"
ENTRY_POINTS = """
[gatort.robots]
spring = own_robot:SpringArm
mujoco = own_robot:SpringArm
number = os:sep
absent = no_such_module:Arm

[gatort.tasks]
hover = own_task:Hover
misnamed = own_task:Hover
stacking = own_task:Hover
number = os:sep
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder of an installed package with the robot and the task of the examples."""
    folder = tmp_path / "site"
    facts = folder / "lab-1.0.dist-info"
    facts.mkdir(parents=True)
    facts.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    facts.joinpath("entry_points.txt").write_text(ENTRY_POINTS)
    for name in ("own_robot.py", "own_task.py"):
        shutil.copy(EXAMPLES / name, folder)
    return folder


@pytest.fixture
def importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package on this process's path."""
    monkeypatch.syspath_prepend(installed)
    yield
    for name in ("own_robot", "own_task"):
        sys.modules.pop(name, None)


def command(installed: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    return [sys.executable, "-P", "-m", "gatort", *arguments], {**os.environ, "PYTHONPATH": path}


@pytest.mark.slow
def test_an_arm_of_another_package_is_driven_over_a_wire(installed: Path) -> None:
    words, environment = command(installed, "robot", "spring", "--bind", "tcp://127.0.0.1:0")
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("spring at tcp://127.0.0.1:")
            clock = MonotonicClock()
            with closing(RemoteRobot(line.split()[2].rstrip(","), clock)) as robot:
                assert [key.name for key in robot.interface.observations] == ["joint/position"]
                assert robot.observe().values[0].item() == 0.0
                assert robot.state is State.DISARMED
        finally:
            process.terminate()
        process.communicate()
    assert process.returncode == 143


@pytest.mark.slow
def test_demonstrations_of_a_task_of_another_package_are_made_by_workers(
    installed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "demos"
    arguments = ("demos", str(out), "--task", "hover", "--episodes", "2", "--workers", "2")
    words, environment = command(installed, *arguments)
    subprocess.run(words, env=environment, check=True, capture_output=True)
    manifest = load_manifest(out)
    assert (manifest.task, manifest.episodes) == ("hover", 2)


@pytest.mark.usefixtures("importable")
def test_a_name_of_gatort_itself_cannot_be_taken() -> None:
    assert type(task_named("stacking")).__module__ == "gatort.sim.tasks.stacking.task"
    assert isinstance(task_named("hover"), Task)


@pytest.mark.usefixtures("importable")
def test_an_unknown_arm_or_task_is_answered_with_those_of_other_packages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["robot", "sprung"]) == 2
    assert "one of mujoco, pybullet, franka, absent, number, spring" in (capsys.readouterr().err)
    with pytest.raises(ConfigError, match=r"stacking, reach, hover, misnamed, number; found"):
        task_named("hoover")


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["absent"], "'absent' is no_such_module:Arm, which cannot be imported: ModuleNotFound"),
        (["number"], "number: expected a subclass of gatort.Driver, found '/'"),
        (
            ["spring", "--address", "10.0.0.1"],
            "are for franka: leave them out for spring",
        ),
        (["spring", "--again"], "--again lays out simulated blocks: leave it out for spring"),
    ],
)
def test_an_arm_that_cannot_be_made_is_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["robot", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("name", ["misnamed", "number"])
def test_an_object_that_is_no_task_of_that_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"task '{name}': expected a subclass of"):
        task_named(name)


# -- An arm by its class -----------------------------------------------------------------------

MODULES = {
    "lab_arm": "from own_robot import SpringArm as Arm\nNAME = 'spring'\n",
    "lab_broken": "raise OSError('no bus')\n",
    "lab_lacking": "import a_library_that_is_absent\n",
    "lab_failing": (
        "import gatort\n"
        "from gatort.runtime.errors import RobotError\n"
        "class Arm(gatort.Driver):\n"
        "    def __init__(self, clock, device): ...\n"
        "    _advance = _read = close = None\n"
        "def absent(clock):\n"
        "    raise RobotError('no arm on the bus')\n"
    ),
}


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with modules that nobody installed."""
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(EXAMPLES / "own_robot.py", folder)
    for name, text in MODULES.items():
        folder.joinpath(f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    path = list(sys.path)
    yield folder
    sys.path[:] = path
    for name in ("own_robot", *MODULES):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("from_profile", [False, True], ids=["flag", "profile"])
def test_an_arm_is_driven_by_a_class_from_the_working_directory(
    own_folder: Path, from_profile: bool
) -> None:
    own_folder.joinpath("lab.toml").write_text('[robot]\ndriver = "lab_arm:Arm"\n')
    which = ("--profile", "lab.toml") if from_profile else ("--driver", "lab_arm:Arm")
    words = [sys.executable, "-P", "-m", "gatort", "robot", *which, "--bind", "tcp://127.0.0.1:0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("lab_arm:Arm at tcp://127.0.0.1:")
            with closing(RemoteRobot(line.split()[2].rstrip(","), MonotonicClock())) as robot:
                assert (robot.name, robot.simulated) == ("lab_arm:Arm", False)
                assert robot.observe().values[0].item() == 0.0
        finally:
            process.terminate()
        process.communicate()
    assert process.returncode == 143


@pytest.mark.usefixtures("own_folder")
def test_a_module_on_pythons_path_comes_before_one_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(sys.path)
    installed = tmp_path / "site"
    installed.mkdir()
    installed.joinpath("lab_arm.py").write_text("Arm = 'installed'\n")
    monkeypatch.syspath_prepend(installed)
    assert load_named("lab_arm:Arm") == "installed"
    assert str(Path.cwd()) not in sys.path
    assert load_named("lab_failing:absent").__name__ == "absent"
    assert sys.path == [str(installed), *before, str(Path.cwd())]


@pytest.mark.usefixtures("own_folder")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lab_arm"], "expected a class as module:Class, found 'lab_arm'"),
        (["lab_arm:"], "expected a class as module:Class, found 'lab_arm:'"),
        (["lab.arm:Arm"], "lab.arm:Arm: expected a module lab on Python's path or in"),
        (["lab_arm.more:Arm"], "lab_arm.more:Arm: expected a module lab_arm.more on Python's"),
        (["lab_broken:Arm"], "lab_broken:Arm: the module cannot be imported: OSError: no bus"),
        (["lab_lacking:Arm"], "ModuleNotFoundError: No module named 'a_library_that_is_absent'"),
        (["lab_arm:Leg"], "lab_arm:Leg: expected a class Leg in "),
        (["lab_arm:NAME"], "expected a subclass of gatort.Driver, found 'spring'"),
        (["lab_failing:Arm"], "expected an arm from a call with the clock alone, found TypeErr"),
        (["lab_failing:absent"], "no arm on the bus"),
        (["lab_arm:Arm", "--again"], "--again lays out simulated blocks: leave it out for lab"),
    ],
)
def test_a_class_that_makes_no_arm_is_refused_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["robot", "--driver", *arguments]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "found"),
    [([], "neither"), (["spring", "--driver", "a:B"], "both, spring and a:B")],
)
def test_an_arm_is_named_once(
    arguments: list[str], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["robot", *arguments]) == 2
    assert f"such as mujoco, or --driver module:Class, found {found}" in capsys.readouterr().err
