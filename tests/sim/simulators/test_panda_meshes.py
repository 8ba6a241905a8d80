"""The Panda's meshes keep their shape where vertices are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gatort.sim.simulators.bullet_client import PANDA_URDF
from gatort.sim.simulators.panda_meshes import read_parts

URDF = """
<robot>
  <link name="bare"/>
  <link name="turned">
    <visual>
      <origin rpy="0 0 1.5707963267948966" xyz="0 0 1"/>
      <geometry><mesh filename="package://corner.obj"/></geometry>
    </visual>
  </link>
</robot>
"""
OBJ = """
v 1 0 0
v 0 2 0
v 0 0 3
vn 0 0 1
usemtl skin
f 1//1 2//1 3//1
"""
MTL = "newmtl skin\nKd 0.1 0.2 0.3\n"


def test_a_part_lies_in_its_links_frame_and_has_its_materials_colour(tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(URDF)
    (tmp_path / "corner.obj").write_text(OBJ)
    (tmp_path / "corner.mtl").write_text(MTL)
    (part,) = read_parts(tmp_path / "arm.urdf", cell_m=0.1)
    assert (part.link, part.colour) == ("turned", (0.1, 0.2, 0.3))
    corners = part.vertices[part.faces[0]]
    np.testing.assert_allclose(corners, [[0, 1, 1], [-2, 0, 1], [0, 0, 4]], atol=1e-12)  # rounding
    np.testing.assert_allclose(part.normals, [[0, 0, 1]] * 3, atol=1e-12)


@pytest.mark.parametrize("cell_m", [0.004, 0.008])
def test_joined_vertices_keep_every_links_extent(cell_m: float) -> None:
    whole, thinned = read_parts(PANDA_URDF, 1e-6), read_parts(PANDA_URDF, cell_m)
    assert sum(len(part.faces) for part in thinned) < 0.6 * sum(len(part.faces) for part in whole)
    for link in {part.link for part in whole}:
        extents = []
        for parts in (whole, thinned):
            vertices = np.concatenate([part.vertices for part in parts if part.link == link])
            extents.append([vertices.min(axis=0), vertices.max(axis=0)])
        np.testing.assert_allclose(*extents, atol=cell_m)


def test_normals_have_unit_length_and_faces_have_three_corners() -> None:
    for part in read_parts(PANDA_URDF, 0.008):
        np.testing.assert_allclose(np.linalg.norm(part.normals, axis=1), 1, atol=1e-6)
        a, b, c = part.faces.T
        assert ((a != b) & (b != c) & (c != a)).all()
        assert part.faces.max() < len(part.vertices)
