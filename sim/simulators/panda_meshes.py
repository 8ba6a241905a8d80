"""The look of a real Panda: the visual meshes of pybullet_data, thinned for a software renderer.

A renderer without a GPU pays for every vertex, and a picture of 64×64 pixels shows no more than a
few millimetres. So vertices that share a cell of space and face the same way become one.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_WHITE: Final = (1.0, 1.0, 1.0)
_PACKAGE: Final = "package://"
_EXACT_M: Final = 1e-6
_FEW_FACES: Final = 1000
"""A mesh of fewer triangles is kept whole. The finger is one, and the wrist's camera is close."""


@dataclass(frozen=True, slots=True)
class Part:
    """The surface of a link that has one colour."""

    link: str
    """Name of the link in the URDF."""
    colour: tuple[float, float, float]
    """RGB in [0, 1]."""
    vertices: Array
    """Corners in the link's frame, (vertices, 3) m."""
    normals: Array
    """Unit normal at each vertex, (vertices, 3)."""
    faces: Indices
    """Indices of each triangle's corners, (faces, 3)."""


def read_parts(urdf: Path, cell_m: float) -> list[Part]:
    """Read the coloured surfaces of all links.

    Args:
        urdf: file whose meshes lie beside it. A link without a mesh has no parts.
        cell_m: edge of the cells in which vertices become one.
    """
    parts = [
        part
        for link in ET.parse(urdf).getroot().iter("link")  # noqa: S314  # a file of pybullet_data
        for visual in link.iter("visual")
        for part in _parts_of(link.attrib["name"], visual, urdf.parent, cell_m)
    ]
    return [part for part in parts if len(part.faces)]  # A sticker may vanish in a cell.


def _parts_of(link: str, visual: ET.Element, folder: Path, cell_m: float) -> Iterator[Part]:
    mesh, origin = visual.find("geometry/mesh"), visual.find("origin")
    if mesh is None:
        return
    rotation, offset = _placement(origin)
    path = folder / mesh.attrib["filename"].removeprefix(_PACKAGE)
    vertices, normals, surfaces = _read_obj(path)

    colours = _read_mtl(path.with_suffix(".mtl"))
    faces: dict[tuple[float, float, float], list[Indices]] = {}
    for material, corners in surfaces.items():
        faces.setdefault(colours.get(material, _WHITE), []).append(corners)
    few = sum(map(len, surfaces.values())) < _FEW_FACES
    for colour, pieces in faces.items():
        corners = np.concatenate(pieces)  # (faces, 3, 2): vertex and normal of each corner
        facing = normals[corners[..., 1]] @ rotation.T  # (faces, 3, 3)
        places = vertices[corners[..., 0]] @ rotation.T + offset  # (faces, 3, 3)
        yield _thinned(link, colour, places, facing, _EXACT_M if few else cell_m)


def _placement(origin: ET.Element | None) -> tuple[Array, Array]:
    """Return rotation (3, 3) and offset (3,) of a URDF `origin`."""
    if origin is None:
        return np.eye(3), np.zeros(3)
    roll, pitch, yaw = (float(angle) for angle in origin.attrib["rpy"].split())
    about_x, about_y, about_z = np.eye(3), np.eye(3), np.eye(3)
    about_x[1:, 1:] = _turn(roll)
    about_y[::2, ::2] = _turn(-pitch)
    about_z[:2, :2] = _turn(yaw)
    return about_z @ about_y @ about_x, np.array(origin.attrib["xyz"].split(), float)


def _turn(angle_rad: float) -> Array:
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, -sine], [sine, cosine]])


def _read_obj(path: Path) -> tuple[Array, Array, Mapping[str, Indices]]:
    """Return vertices, normals, and the corners (faces, 3, 2) of each material's triangles."""
    vertices: list[list[str]] = []
    normals: list[list[str]] = []
    surfaces: dict[str, list[tuple[str, str]]] = {}
    material = ""
    for kind, *words in map(str.split, filter(str.strip, path.read_text().splitlines())):
        match kind:
            case "v":
                vertices.append(words)
            case "vn":
                normals.append(words)
            case "usemtl":
                material = words[0]
            case "f":
                corners = [word.split("/") for word in words]
                surfaces.setdefault(material, []).extend((c[0], c[-1]) for c in corners)

    places = {
        name: np.array(corners, np.int64).reshape(-1, 3, 2) - 1
        for name, corners in surfaces.items()
    }
    return np.array(vertices, float), np.array(normals, float), places


def _read_mtl(path: Path) -> Mapping[str, tuple[float, float, float]]:
    """Return the diffuse colour of each material. A mesh without the file has none."""
    colours: dict[str, tuple[float, float, float]] = {}
    name = ""
    lines = path.read_text().splitlines() if path.exists() else []
    for kind, *words in map(str.split, filter(str.strip, lines)):
        if kind == "newmtl":
            name = words[0]
        elif kind == "Kd":
            red, green, blue = map(float, words)
            colours[name] = (red, green, blue)
    return colours


def _thinned(
    link: str,
    colour: tuple[float, float, float],
    places: Array,
    facing: Array,
    cell_m: float,
) -> Part:
    """Join corners that share a cell and face the same way. Drop triangles that vanish."""
    cells = np.floor(places.reshape(-1, 3) / cell_m)
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    centres = _means(places.reshape(-1, 3), cell)  # So neighbours that face apart still meet.

    sides = np.round(facing.reshape(-1, 3))
    _, first, vertex = np.unique(
        np.column_stack([cell, sides]), axis=0, return_index=True, return_inverse=True
    )
    normals = _means(facing.reshape(-1, 3), vertex)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)

    corners = cell.reshape(-1, 3)
    a, b, c = corners.T
    kept = (a != b) & (b != c) & (c != a)
    return Part(link, colour, centres[cell[first]], normals, vertex.reshape(-1, 3)[kept])


def _means(rows: Array, group: Indices) -> Array:
    """Return the mean of the rows of each group, (groups, 3)."""
    sums = np.zeros((int(group.max()) + 1, rows.shape[1]))
    np.add.at(sums, group, rows)
    means: Array = sums / np.bincount(group)[:, None]
    return means
