"""Facts of an MJCF scene that pictures need, for a simulator that does not read MJCF itself."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from .simulator import Array, Scene

_PANDA: Final = Path(__file__).with_name("panda.xml")
_WORLD: Final = "world"
_GREY: Final = "0.5 0.5 0.5 1"
"""Colour that MuJoCo gives a geom without one."""
_TARGET_RADIUS: Final = "0.02"


@dataclass(frozen=True, slots=True)
class CameraPose:
    """Place of a camera of panda.xml. It looks along its own -z, and its y points up."""

    body: str
    """Body to which the camera is fixed, `world` or a link of the arm."""
    position: Array
    """(3,) m in the body's frame."""
    rotation: Array
    """R_body_camera, (3, 3)."""
    fovy_deg: float
    """Vertical field of view."""


@dataclass(frozen=True, slots=True)
class BodyLook:
    """Look of a body of a task's scene."""

    rgba: tuple[float, ...]
    """(4,), each in [0, 1]."""
    size_m: float
    """Radius of a target's ball. A cube's size comes with its trial."""


def read_cameras() -> Mapping[str, CameraPose]:
    """Read the cameras of panda.xml, by name."""
    root = ET.parse(_PANDA).getroot()  # noqa: S314  # our own file
    return {name: pose for world in root.iter("worldbody") for name, pose in _cameras_in(world)}


def _cameras_in(body: ET.Element) -> Iterator[tuple[str, CameraPose]]:
    for camera in body.findall("camera"):
        right, up = np.array(camera.attrib["xyaxes"].split(), float).reshape(2, 3)
        right = right / np.linalg.norm(right)
        up = up - right * (up @ right)
        up = up / np.linalg.norm(up)
        yield (
            camera.attrib["name"],
            CameraPose(
                body=body.attrib.get("name", _WORLD),
                position=np.array(camera.attrib["pos"].split(), float),
                rotation=np.column_stack([right, up, np.cross(right, up)]),
                fovy_deg=float(camera.attrib["fovy"]),
            ),
        )
    for child in body.findall("body"):
        yield from _cameras_in(child)


def read_bodies(scene: Scene) -> Mapping[str, BodyLook]:
    """Read the look of the scene's cubes and targets, by name, from their first geoms."""
    root = ET.parse(scene.xml).getroot()  # noqa: S314  # the task's own file
    geoms = {body.get("name"): body.find("geom") for body in root.iter("body")}
    return {name: _look_of(geoms[name]) for name in (*scene.cubes, *scene.targets)}


def _look_of(geom: ET.Element | None) -> BodyLook:
    given = {} if geom is None else geom.attrib
    rgba = tuple(map(float, given.get("rgba", _GREY).split()))
    return BodyLook(rgba, float(given.get("size", _TARGET_RADIUS).split()[0]))
