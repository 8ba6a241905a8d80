"""Pictures of a task's scene whose cubes wear tags, drawn by MuJoCo.

The scene has no physics of its own: `draw` shows the positions of a simulator. Call `choose_gl`
before this file is first imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from gatort.runtime.robots.cameras.calibration import CameraCalibration, CameraLens, CameraPlace
from gatort.runtime.robots.cameras.pose import OpticalPose
from gatort.runtime.robots.tags.cubes import FACES, TaggedCube, face_axes
from gatort.runtime.robots.tags.faces import draw_face

from .simulators.mujoco import PANDA_XML, show_positions
from .simulators.simulator import Array, Cube, Scene

TAG_SHARE: Final = 0.8
"""Edge of a tag as a share of its cube's edge."""
FACE_PIXELS: Final = 160
"""Edge of a face in its texture."""
SIDE: Final = "side"
SIDE_M: Final = (0.5, 0.85, 0.6)
"""Place of the second camera: to the left of the arm. It looks down on the table by 33°."""
SIDE_AXES: Final = (-1.0, 0.0, 0.0, 0.0, -0.54, 0.84)
SIDE_FOVY_DEG: Final = 45.0
SAMPLES: Final = 4
"""Samples of a pixel, because edges without them are off by half a pixel."""
_OPTICAL: Final = np.diag([1.0, -1.0, -1.0])
"""R_mujoco_camera: MuJoCo's cameras look along −z, and y points up."""


def tagged(cubes: Sequence[Cube]) -> dict[str, TaggedCube]:
    """Return tags for the cubes of a layout, numbered in the order of the cubes."""
    return {
        cube.name: TaggedCube(
            edge_m=cube.edge_m, tag_m=TAG_SHARE * cube.edge_m, first_tag=index * len(FACES)
        )
        for index, cube in enumerate(cubes)
    }


class TaggedScene:
    """A scene with tags, and a camera `side` beside those of the scene.

    Args:
        scene: bodies of the task.
        cubes: tags and size of each cube of the scene.
        height: height of the pictures.
        width: width of the pictures.
    """

    def __init__(
        self,
        scene: Scene,
        cubes: Mapping[str, TaggedCube],
        height: int = 720,
        width: int = 1280,
    ) -> None:
        spec = mujoco.MjSpec.from_string(
            scene.xml.read_text(encoding="utf-8"),
            include={PANDA_XML.name: PANDA_XML.read_bytes()},
        )
        spec.visual.global_.offheight = height
        spec.visual.global_.offwidth = width
        spec.visual.quality.offsamples = SAMPLES
        spec.worldbody.add_camera(name=SIDE, pos=SIDE_M, xyaxes=SIDE_AXES, fovy=SIDE_FOVY_DEG)
        for name, cube in cubes.items():
            _wear(spec, name, cube)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._renderer = mujoco.Renderer(self._model, height, width)

    def draw(self, camera: str, positions: Array) -> NDArray[np.uint8]:
        """Draw a picture (height, width, 3) of a simulator's `positions`."""
        show_positions(self._model, self._data, positions)
        self._renderer.update_scene(self._data, camera)
        picture: NDArray[np.uint8] = self._renderer.render().copy()
        return picture

    def calibration(self, camera: str) -> CameraCalibration:
        """Return the true lens and place of a fixed camera of the scene."""
        mujoco.mj_forward(self._model, self._data)
        number = self._model.camera(camera).id
        pose = OpticalPose(
            self._data.cam_xpos[number].copy(),
            self._data.cam_xmat[number].reshape(3, 3) @ _OPTICAL,
        )
        fovy_rad = float(np.radians(self._model.cam_fovy[number]))
        lens = CameraLens.pinhole(self._renderer.width, self._renderer.height, fovy_rad)
        return CameraCalibration(lens=lens, place=CameraPlace.of(pose))

    def close(self) -> None:
        """Free the OpenGL context. A second call does nothing."""
        self._renderer.close()


def _wear(spec: mujoco.MjSpec, name: str, cube: TaggedCube) -> None:
    """Put a mesh with the faces of a tagged cube around a body, whose own geom disappears."""
    worn = f"{name}_tags"
    faces = [draw_face(cube, face, FACE_PIXELS) for face in range(len(FACES))]
    strip = np.repeat(np.hstack(faces)[..., None], 3, axis=2)  # (FACE_PIXELS, 6·FACE_PIXELS, 3)
    height, width = strip.shape[:2]
    texture = spec.add_texture(
        name=worn, type=mujoco.mjtTexture.mjTEXTURE_2D, height=height, width=width, nchannel=3
    )
    texture.data = strip.tobytes()
    material = spec.add_material(name=worn)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = worn
    points, places, triangles = _mesh(cube.edge_m / 2)
    spec.add_mesh(
        name=worn,
        uservert=points.ravel().tolist(),
        usertexcoord=places.ravel().tolist(),
        userface=triangles.ravel().tolist(),
    )
    body = spec.body(name)
    for geom in body.geoms:
        geom.material = ""
        geom.rgba[3] = 0.0
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=worn,
        material=worn,
        contype=0,
        conaffinity=0,
        mass=0,
    )


def _mesh(half_m: float) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return corners (24, 3), their places in the texture (24, 2) and triangles (12, 3)."""
    signs = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)])
    points: list[Array] = []
    places: list[tuple[float, float]] = []
    triangles: list[tuple[int, int, int]] = []
    for face in range(len(FACES)):
        normal, right, up = face_axes(face)
        first = len(points)
        for x, y in signs:
            points.append(half_m * (normal + x * right + y * up))
            places.append(((face + (x + 1) / 2) / len(FACES), (1 - y) / 2))
        triangles += [(first, first + 2, first + 1), (first, first + 3, first + 2)]
    return np.array(points), np.array(places), np.array(triangles)
