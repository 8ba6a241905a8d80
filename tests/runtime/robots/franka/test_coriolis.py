"""The Coriolis torques of `coriolis.h`, beside MuJoCo's of the same bodies."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
from tests.runtime.robots.franka.control_box import urdf

from gatort.runtime.c_loops import OPTIONS
from gatort.runtime.compiler import compiled
from gatort.runtime.errors import ConfigError, RobotError
from gatort.runtime.robots.franka.fci_loop import SOURCE
from gatort.runtime.robots.franka.model import BodyRecord, LinkRecord, links_of

HAND_KG = 0.73
HAND_INERTIA = np.diag([0.001, 0.0025, 0.0017])
HAND_CENTRE_M = np.array([-0.01, 0.0, 0.03])


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ctypes.CDLL]:
    source = tmp_path_factory.mktemp("coriolis") / "library.c"
    source.write_text(
        '#include "coriolis.h"\n'
        "void torques(const Link *links, const Body *hand, int count, const double *position,\n"
        "             const double *velocity, double *out) {\n"
        "    coriolis(links, hand, count, position, velocity, out);\n}\n"
    )
    options = (*OPTIONS, "-shared", "-fPIC", f"-I{Path(SOURCE).parent}")
    with compiled(source, options, "the test", ConfigError) as target:
        yield ctypes.CDLL(str(target))


def in_mujoco(with_hand: bool) -> mujoco.MjModel:
    centre, inertia = " ".join(map(str, HAND_CENTRE_M)), np.diag(HAND_INERTIA)
    hand = (
        f'<link name="link8"><inertial><origin xyz="{centre}"/><mass value="{HAND_KG}"/>'
        f'<inertia ixx="{inertia[0]}" iyy="{inertia[1]}" izz="{inertia[2]}" ixy="0" ixz="0" '
        f'iyz="0"/></inertial></link>'
    )
    text = urdf().replace('<link name="link8"/>', hand) if with_hand else urdf()
    model = mujoco.MjModel.from_xml_string(text)
    model.opt.gravity[:] = 0
    return model


@pytest.mark.parametrize("with_hand", [False, True])
def test_random_motions_give_the_torques_of_mujoco(library: ctypes.CDLL, with_hand: bool) -> None:
    model = in_mujoco(with_hand)
    data = mujoco.MjData(model)
    links, flange_m = links_of(urdf())
    assert flange_m == 0.107
    centre_m = np.add(HAND_CENTRE_M, [0, 0, flange_m])  # In the frame of the last link.
    hand = BodyRecord(HAND_KG, tuple(centre_m), tuple(HAND_INERTIA.ravel()))
    rng = np.random.default_rng(0)
    for _ in range(50):
        data.qpos[:] = rng.uniform(-3, 3, 7)
        data.qvel[:] = rng.uniform(-3, 3, 7)
        mujoco.mj_forward(model, data)
        found = (ctypes.c_double * 7)()
        library.torques(
            (LinkRecord * 7)(*links), ctypes.byref(hand), int(with_hand),
            (ctypes.c_double * 7)(*data.qpos), (ctypes.c_double * 7)(*data.qvel), found,
        )  # fmt: skip
        np.testing.assert_allclose(list(found), data.qfrc_bias, atol=1e-9)


@pytest.mark.parametrize(
    ("part", "by"),
    [
        ('<axis xyz="0 0 1"/>', '<axis xyz="0 1 0"/>'),
        ('<mass value="2.7"/>', ""),
        ('ixx="0.02"', ""),
        ('xyz="0 0 0.333"', 'xyz="0 0"'),
        ('xyz="0 0 0.333"', 'xyz="0 0 nan"'),
        ("</robot>", ""),
        ('<robot name="arm">', '<!DOCTYPE a [<!ENTITY b "c">]><robot name="arm">'),
    ],
)
def test_a_model_that_lacks_a_part_is_refused(part: str, by: str) -> None:
    assert part in urdf()
    with pytest.raises(RobotError, match="expected a URDF with joint1 to joint8"):
        links_of(urdf().replace(part, by, 1))
