"""MuJoCo's pictures: one OpenGL context for all cameras, and looks that change between trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import mujoco
import numpy as np
from numpy.typing import NDArray

from .look import (
    MOST_CLUTTER,
    MOST_LIGHTS,
    PLAIN,
    TEXTURE_PIXELS,
    CameraShift,
    Clutter,
    Light,
    Look,
)

SHADOW_PIXELS: Final = 256
"""Edge of the shadow map. MuJoCo's 4096 takes 20 ms a picture on a CPU."""
MOST_GEOMS: Final = 1000
_TABLE: Final = "floor"
_SKY: Final = "sky"
_GRAIN: Final = "grain"
_FADE: Final = np.linspace(0.0, 1.0, TEXTURE_PIXELS)[:, None, None]
"""Share of the lower colour in each row of the background."""
_FACES: Final = (-1, TEXTURE_PIXELS, TEXTURE_PIXELS, 3)
"""Shape of a cube's texture: a picture for each face."""

# Arrays of a model that only pictures depend on, and that a look changes.
_SEEN: Final = (
    "mat_rgba", "mat_texrepeat", "geom_rgba", "tex_data",
    "light_pos", "light_dir", "light_diffuse", "light_active", "light_castshadow",
    "cam_pos", "cam_quat", "cam_fovy",
)  # fmt: skip


class MujocoCameras:
    """Pictures of one model, drawn in one OpenGL context.

    Args:
        model: compiled scene that includes panda.xml. Looks change it.
        cubes: geoms of the scene's cubes, in its order.

    Raises:
        Exception: MuJoCo cannot make an OpenGL context.
    """

    def __init__(self, model: mujoco.MjModel, cubes: Sequence[int]) -> None:
        self._model = model
        self._cubes = list(cubes)
        self._clutter = [model.geom(f"clutter_{index}").id for index in range(MOST_CLUTTER)]
        self._nominal = {name: getattr(model, name).copy() for name in _SEEN}
        headlight = model.vis.headlight
        self._headlight = (headlight.ambient.copy(), headlight.diffuse.copy())
        self._sizes: dict[str, tuple[int, int]] = {}
        self._context: mujoco.MjrContext | None = None
        self._stale = False

    def add(self, name: str, height: int, width: int) -> None:
        """Make a camera ready to draw pictures of this size."""
        self._sizes[name] = (height, width)
        if self._context is None:
            self._open()

    def _open(self) -> None:
        model = self._model
        model.vis.quality.shadowsize = SHADOW_PIXELS  # Fixed once the context is made.
        self._gl = mujoco.GLContext(model.vis.global_.offwidth, model.vis.global_.offheight)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, MOST_GEOMS)
        self._options = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def draw(self, data: mujoco.MjData, name: str) -> NDArray[np.uint8]:
        """Draw a picture (height, width, 3) with a camera that `add` made ready."""
        height, width = self._sizes[name]
        context: Any = self._context
        self._gl.make_current()
        self._upload()

        self._camera.fixedcamid = self._model.camera(name).id
        mujoco.mjv_updateScene(
            self._model, data, self._options, None, self._camera,
            mujoco.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        view = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(view, self._scene, context)
        picture = np.empty((height, width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, view, context)
        return picture[::-1].copy()  # OpenGL's first row is the lowest.

    def _upload(self) -> None:
        """Hand changed textures to OpenGL."""
        if self._stale:
            for texture in range(self._model.ntex):
                mujoco.mjr_uploadTexture(self._model, self._context, texture)
            self._stale = False

    def close(self) -> None:
        """Free the OpenGL context. A second call does nothing."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._context = None

    # -- Looks ---------------------------------------------------------------------------------

    def use(self, look: Look) -> None:
        """Draw this look from now on."""
        self._restore()
        if look is PLAIN:
            return
        self._paint(look)
        self._light(look)
        for name, shift in look.cameras:
            self._move(name, shift)
        for geom, thing in zip(self._clutter, look.clutter, strict=False):
            self._place(geom, thing)

    def _restore(self) -> None:
        for name, values in self._nominal.items():
            getattr(self._model, name)[:] = values
        headlight = self._model.vis.headlight
        headlight.ambient[:], headlight.diffuse[:] = self._headlight
        self._stale = True

    def _paint(self, look: Look) -> None:
        model = self._model
        if look.table is not None:
            self._texture(_TABLE)[:] = look.table
            model.mat_texrepeat[model.material("floor").id] = look.table_repeats
        if look.background is not None:
            sky = self._texture(_SKY).reshape(_FACES)  # A face of the sky's cube each.
            sky[:] = 255 * (look.background[0] * (1 - _FADE) + look.background[1] * _FADE)
        if look.grain is not None:
            faces = self._texture(_GRAIN).reshape(_FACES)
            faces[:] = look.grain[..., None]
        if look.arm is not None:
            for material, colour in zip(("white", "grey"), look.arm, strict=True):
                model.mat_rgba[model.material(material).id, :3] = colour
        if look.cubes is not None:
            model.geom_rgba[self._cubes, :3] = look.cubes

    def _texture(self, name: str) -> NDArray[np.uint8]:
        """Return a writable view (height, width, 3) of a texture."""
        model = self._model
        texture = model.texture(name).id
        height = int(model.tex_height[texture])
        width = int(model.tex_width[texture])
        first = int(model.tex_adr[texture])
        pixels: NDArray[np.uint8] = model.tex_data[first : first + height * width * 3]
        return pixels.reshape(height, width, 3)

    def _light(self, look: Look) -> None:
        headlight = self._model.vis.headlight
        headlight.ambient[:] *= look.brightness
        headlight.diffuse[:] *= look.brightness
        self._model.light_diffuse[:] *= look.brightness
        if look.ambient is not None:
            headlight.ambient[:] = look.ambient
        if look.headlight is not None:
            headlight.diffuse[:] = look.headlight
        if look.lights:
            self._model.light_active[:] = 0
        for index, light in enumerate(look.lights[:MOST_LIGHTS]):
            self._switch_on(index, light)

    def _switch_on(self, index: int, light: Light) -> None:
        model = self._model
        model.light_active[index] = 1
        model.light_pos[index] = light.position
        model.light_dir[index] = light.direction / np.linalg.norm(light.direction)
        model.light_diffuse[index] = light.colour
        model.light_castshadow[index] = light.casts_shadow

    def _move(self, name: str, shift: CameraShift) -> None:
        model = self._model
        camera = model.camera(name).id
        nominal = model.cam_quat[camera].copy()
        offset = np.zeros(3)
        mujoco.mju_rotVecQuat(offset, shift.offset_m, nominal)
        model.cam_pos[camera] += offset

        angle = float(np.linalg.norm(shift.turn_rad))
        if angle > 0:
            turn = np.zeros(4)
            mujoco.mju_axisAngle2Quat(turn, shift.turn_rad / angle, angle)
            mujoco.mju_mulQuat(model.cam_quat[camera], nominal, turn)
        model.cam_fovy[camera] += np.degrees(shift.wider_rad)

    def _place(self, geom: int, thing: Clutter) -> None:
        model = self._model
        kinds = mujoco.mjtGeom
        model.geom_type[geom] = kinds.mjGEOM_SPHERE if thing.round else kinds.mjGEOM_BOX
        model.geom_pos[geom] = thing.position
        model.geom_size[geom] = thing.size_m
        model.geom_rgba[geom] = (*thing.colour, 1.0)
