"""Pictures of PyBullet's Panda, drawn on the CPU by Bullet's TinyRenderer.

A second simulation holds the visible things and never steps. So the physics of a trial is the same
with and without cameras, and meshes are loaded once and not at every reset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatort.runtime.errors import ConfigError

from .bullet_client import PANDA_URDF, BulletClient, pybullet, quietly
from .panda_meshes import Part, read_parts
from .scene_look import CameraPose, read_bodies, read_cameras
from .simulator import Scene

Place = tuple[Sequence[float], Sequence[float]]
"""Position (3,) m and quaternion (x, y, z, w) in W."""

_CELL_M: Final = 0.008
"""A pixel of a 64×64 picture is 18 mm wide at the arm's base. On one core, a picture of whole
meshes with shadows takes 39 ms, one of these 13 ms."""
_CLIP_M: Final = (0.01, 8.0)
_UPRIGHT: Final = (0.0, 0.0, 0.0, 1.0)

_TABLE: Final = (0.70, 0.57, 0.43)
_FLOOR: Final = (0.36, 0.37, 0.39)
_WALL: Final = (0.80, 0.83, 0.85)
_ROOM: Final = (
    # (centre, half edges, colour): table top, floor, and the wall behind the arm
    ((0.4, 0.0, -0.02), (0.75, 0.8, 0.02), _TABLE),
    ((0.0, 0.0, -0.80), (5.0, 5.0, 0.05), _FLOOR),
    ((-2.0, 0.0, 0.50), (0.05, 5.0, 3.0), _WALL),
)

_LIGHT: Final[dict[str, Any]] = {
    "lightDirection": (0.6, -0.5, 1.6),
    "lightColor": (1.0, 1.0, 1.0),
    "lightDistance": 2.0,
    "lightAmbientCoeff": 0.55,
    "lightDiffuseCoeff": 0.42,
    "lightSpecularCoeff": 0.15,
    "shadow": 1,
}


@dataclass(frozen=True, slots=True)
class _Camera:
    pose: CameraPose
    height: int
    width: int
    projection: Sequence[float]
    """(16,), column by column."""


@cache
def _panda_parts() -> list[Part]:
    return read_parts(PANDA_URDF, _CELL_M)


class BulletCameras:
    """Cameras of one simulator, and the visible things in front of them."""

    def __init__(self, scene: Scene) -> None:
        self._bullet = BulletClient()
        self._poses = read_cameras()
        self._cameras: dict[str, _Camera] = {}
        self._looks = read_bodies(scene)
        self._boxes: dict[str, tuple[float, int]] = {}
        """Edge and drawn body of each cube."""

        for centre, half, colour in _ROOM:
            self._add_box(half, (*colour, 1.0), centre)
        self._links, self._parts = self._load_arm()
        self._balls = {name: self._add_ball(name) for name in scene.targets}

    def close(self) -> None:
        """Free the drawn things. A second call does nothing."""
        self._bullet.close()

    # -- Things --------------------------------------------------------------------------------

    def _load_arm(self) -> tuple[Mapping[str, int], list[tuple[int, int]]]:
        """Return each link's index by name, and link and drawn body of each part."""
        bullet = self._bullet
        with quietly():
            arm = bullet.loadURDF(str(PANDA_URDF), flags=pybullet.URDF_IGNORE_VISUAL_SHAPES)
        links = {bullet.getBodyInfo(arm)[0].decode(): -1}
        for link in range(bullet.getNumJoints(arm)):
            links[bullet.getJointInfo(arm, link)[12].decode()] = link
        bullet.removeBody(arm)
        return links, [(links[part.link], self._add_part(part)) for part in _panda_parts()]

    def _add_part(self, part: Part) -> int:
        return self._add(
            pybullet.GEOM_MESH,
            (*part.colour, 1.0),
            shine=0.3,
            vertices=part.vertices.tolist(),
            normals=part.normals.tolist(),
            indices=part.faces.ravel().tolist(),
        )

    def _add_box(
        self,
        half_edges_m: Sequence[float],
        rgba: Sequence[float],
        centre: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> int:
        body = self._add(pybullet.GEOM_BOX, rgba, shine=0.0, halfExtents=half_edges_m)
        self._put(body, (centre, _UPRIGHT))
        return body

    def _add_ball(self, target: str) -> int:
        look = self._looks[target]
        return self._add(pybullet.GEOM_SPHERE, look.rgba, shine=0.0, radius=look.size_m)

    def _add(self, kind: int, rgba: Sequence[float], shine: float, **shape: object) -> int:
        visual = self._bullet.createVisualShape(
            kind, rgbaColor=rgba, specularColor=[shine] * 3, **shape
        )
        body: int = self._bullet.createMultiBody(0, baseVisualShapeIndex=visual)
        return body

    def _put(self, body: int, place: Place) -> None:
        self._bullet.resetBasePositionAndOrientation(body, *place)

    def show_arm(self, links: Sequence[Place]) -> None:
        """Put every part of the arm where its link is. The base stays where it is."""
        hand = self._links["panda_hand"]
        self._hand = links[hand]
        for link, body in self._parts:
            if link >= 0:
                self._put(body, links[link])

    def show_cube(self, name: str, edge_m: float, place: Place) -> None:
        """Put a cube of this size at a place."""
        drawn_edge_m, body = self._boxes.get(name, (None, -1))
        if drawn_edge_m != edge_m:
            if name in self._boxes:
                self._bullet.removeBody(body)
            body = self._add_box([edge_m / 2] * 3, self._looks[name].rgba)
            self._boxes[name] = edge_m, body
        self._put(body, place)

    def show_target(self, name: str, position: Sequence[float]) -> None:
        """Put the ball of a target at (3,) m in W."""
        self._put(self._balls[name], (position, _UPRIGHT))

    # -- Pictures ------------------------------------------------------------------------------

    def add(self, name: str, height: int, width: int) -> None:
        """Make a camera of panda.xml ready to draw pictures of this size.

        Raises:
            ConfigError: panda.xml has no camera of this name.
        """
        if name not in self._poses:
            raise ConfigError(
                f"expected a camera of the arm's scene, one of {', '.join(self._poses)}; "
                f"found {name!r}"
            )
        pose = self._poses[name]
        projection = _projection(pose.fovy_deg, height, width)
        self._cameras[name] = _Camera(pose, height, width, projection)

    def draw(self, name: str) -> NDArray[np.uint8]:
        """Draw a picture (height, width, 3) of the things where they were put last."""
        camera = self._cameras[name]
        drawn = self._bullet.getCameraImage(
            camera.width,
            camera.height,
            viewMatrix=self._view(camera.pose),
            projectionMatrix=camera.projection,
            renderer=pybullet.ER_TINY_RENDERER,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            **_LIGHT,
        )
        pixels = np.asarray(drawn[2], np.uint8).reshape(camera.height, camera.width, 4)
        return pixels[..., :3].copy()

    def _view(self, pose: CameraPose) -> list[float]:
        """Return T_camera_world (16,), column by column."""
        rotation, position = pose.rotation, pose.position
        if pose.body != "world":
            hand_position, quaternion = self._hand
            hand = np.array(pybullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
            position = np.array(hand_position) + hand @ position
            rotation = hand @ rotation
        view = np.eye(4)
        view[:3, :3] = rotation.T
        view[:3, 3] = -rotation.T @ position
        columns: list[float] = view.T.ravel().tolist()
        return columns


def _projection(fovy_deg: float, height: int, width: int) -> list[float]:
    """Return a projection (16,), column by column, that samples each pixel at its centre."""
    columns = list(pybullet.computeProjectionMatrixFOV(fovy_deg, width / height, *_CLIP_M))
    # TinyRenderer samples at a corner, half a pixel to the left of the centre and below it.
    columns[8] += 1 / width
    columns[9] += 1 / height
    return columns
