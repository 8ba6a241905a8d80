"""The configuration of a camera refuses sources, sizes and limits that cannot work."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pydantic import ValidationError

from gatort.runtime.clock import VirtualClock
from gatort.runtime.errors import MissingDependency
from gatort.runtime.robots.cameras.config import CameraConfig, CamerasProfile, parse_source
from gatort.runtime.robots.cameras.sources import make_source


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("v4l2:/dev/video0", "v4l2", "/dev/video0"),
        ("file:films/a.mp4", "file", "films/a.mp4"),
        ("http://10.0.0.2:8080/a?b=c", "http", "http://10.0.0.2:8080/a?b=c"),
        ("rtsp://10.0.0.2/a", "rtsp", "rtsp://10.0.0.2/a"),
        ("realsense:0123", "realsense", "0123"),
    ],
)
def test_a_source_is_parsed_into_kind_and_place(text: str, kind: str, place: str) -> None:
    assert parse_source(text) == (kind, place)


def test_a_password_is_never_shown() -> None:
    config = CameraConfig(source="http://me:secret@10.0.0.2:80/a")
    assert config.address.shown == "http://10.0.0.2:80/a"


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": "/dev/video0"},
        {"source": "v4l2:"},
        {"source": "http:nowhere"},
        {"source": "file:a.png", "height_px": 60},
        {"source": "file:a.png", "crop": (0, 0, 0, 10)},
        {"source": "file:a.png", "latency_ms": -1.0},
        {"source": "file:a.png", "age_limit_ms": float("nan")},
        {"source": "file:a.png", "sorce": "file:b.png"},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CameraConfig.model_validate(wrong)


def test_a_camera_has_a_plain_name() -> None:
    with pytest.raises(ValidationError):
        CamerasProfile.model_validate({"cameras": {"Front/x": {"source": "file:a.png"}}})


def test_an_absent_realsense_package_is_named_with_its_install_line(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(MissingDependency, match=r"needs pyrealsense2: pip install 'gatort\[cam"):
        make_source(CameraConfig(source="realsense:0123"), clock)
