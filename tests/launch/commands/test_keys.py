"""`gatort keys` says which file goes to which host."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatort.launch import cli


def test_each_file_is_named_below_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["keys", "keys"]) == 0
    assert capsys.readouterr().out.splitlines()[:6] == [
        "for the robot's host:",
        "  keys/robot.key (secret)",
        "  keys/controller.pub",
        "for the controller's host:",
        "  keys/controller.key (secret)",
        "  keys/robot.pub",
    ]

    assert cli.main(["keys", "keys", "--add", "lab"]) == 0
    assert capsys.readouterr().out.splitlines()[:5] == [
        "for the robot's host, beside robot.key; start the robot again:",
        "  keys/controller-lab.pub",
        "for the host of the new controller, for its --keys:",
        "  keys/lab/controller.key (secret)",
        "  keys/lab/robot.pub",
    ]
