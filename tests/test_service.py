"""The shipped unit of systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_docs import flags_of

UNIT = Path(__file__).parents[1] / "docs" / "gatort-robot.service"
COMMAND = "/opt/gatort/bin/gatort"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    gatort = Path(sys.executable).with_name("gatort")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(COMMAND, str(gatort)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_flag_of_the_unit_exists() -> None:
    command = re.search(rf"^ExecStart={COMMAND} (.*)$", UNIT.read_text(), re.MULTILINE)
    assert command is not None
    words = command[1].split()
    assert words[:2] == ["robot", "franka"]
    assert {word for word in words if word.startswith("--")} <= flags_of("robot")
