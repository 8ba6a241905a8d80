"""The arm's bodies as its own model (URDF) describes them, for `coriolis.h`."""

from __future__ import annotations

import ctypes
from typing import Final
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import RobotError

JOINTS: Final = 7
_Place = ctypes.c_double * 3
_Matrix = ctypes.c_double * 9


class BodyRecord(ctypes.Structure):
    """A body: mass in kg, centre in m, inertia about the centre in kg·m², row by row."""

    _fields_ = (("mass_kg", ctypes.c_double), ("centre_m", _Place), ("inertia_kgm2", _Matrix))


class LinkRecord(ctypes.Structure):
    """A link: its frame in the frame before it while its joint is at zero, and its body."""

    _fields_ = (("rotation", _Matrix), ("place_m", _Place), ("body", BodyRecord))


def links_of(urdf: str) -> tuple[list[LinkRecord], float]:
    """Return the links of an arm of seven joints, and the way from the last one to the flange in m.

    Args:
        urdf: model of the arm. Its joints are named `joint1` to `joint8`, after any prefix; the
            last one is fixed and leads to the flange.

    Raises:
        RobotError: it is no model of such an arm.
    """
    try:
        if "<!DOCTYPE" in urdf:
            raise ValueError("it declares a document type, whose entities can grow without bound")
        robot = ET.fromstring(urdf)  # noqa: S314  # without entities
        links = {str(link.get("name")): link for link in robot.findall("link")}
        joints = [_joint(robot, number) for number in range(1, JOINTS + 2)]
        records = [_link(joint, links[_child(joint)]) for joint in joints[:-1]]
        return records, float(_vector(joints[-1].find("origin"), "xyz")[2])
    except (ET.ParseError, LookupError, AttributeError, ValueError, TypeError) as error:
        raise RobotError(
            "the arm's model: expected a URDF with joint1 to joint8 that turn about z, each with a "
            f"body, found one that lacks a part ({error})"
        ) from error


def _joint(robot: ET.Element, number: int) -> ET.Element:
    for joint in robot.findall("joint"):
        if str(joint.get("name")).endswith(f"joint{number}"):
            return joint
    raise LookupError(f"joint{number}")


def _child(joint: ET.Element) -> str:
    return str(_part(joint, "child").get("link"))


def _link(joint: ET.Element, link: ET.Element) -> LinkRecord:
    axis = _vector(joint.find("axis"), "xyz")
    if not np.array_equal(axis, [0, 0, 1]):
        raise ValueError(f"the axis of {joint.get('name')}")
    inertial = _part(link, "inertial")
    origin = inertial.find("origin")
    turned = _rotation(_vector(origin, "rpy"))
    given = {name: float(value) for name, value in _part(inertial, "inertia").attrib.items()}
    inertia = np.array([[given["i" + "".join(sorted(a + b))] for b in "xyz"] for a in "xyz"])

    place = joint.find("origin")
    record = LinkRecord()
    record.rotation[:] = _rotation(_vector(place, "rpy")).ravel().tolist()
    record.place_m[:] = _vector(place, "xyz").tolist()
    record.body.mass_kg = float(_part(inertial, "mass").attrib["value"])
    record.body.centre_m[:] = _vector(origin, "xyz").tolist()
    record.body.inertia_kgm2[:] = (turned @ inertia @ turned.T).ravel().tolist()
    return record


def _part(element: ET.Element, name: str) -> ET.Element:
    part = element.find(name)
    if part is None:
        raise LookupError(f"{name} of {element.get('name')}")
    return part


def _vector(element: ET.Element | None, name: str) -> NDArray[np.float64]:
    text = "0 0 0" if element is None else element.get(name, "0 0 0")
    values = np.array([float(word) for word in text.split()])
    if values.shape != (3,) or not np.isfinite(values).all():
        raise ValueError(f"{name} of {text!r}")
    return values


def _rotation(rpy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation of roll, pitch and yaw in rad, about fixed axes."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    about_x = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    about_y = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    about_z = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    rotation: NDArray[np.float64] = about_z @ about_y @ about_x
    return rotation
