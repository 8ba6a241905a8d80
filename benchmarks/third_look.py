"""Try a policy with cameras under a look that no training and no shipped simulator has.

    python benchmarks/third_look.py runs/camera/bundle --episodes 100

Physics is MuJoCo's own, bit for bit. The links that are drawn are the visual meshes of a real
Panda, taken from pybullet_data, and the table and the background have other textures. So a
failure is a failure to see.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from rich.progress import track

from gatort.policies.loading import PolicyOptions, load_policy
from gatort.sim.graphics import choose_gl
from gatort.sim.make import make_robot
from gatort.sim.simulators import simulator as simulator_module
from gatort.sim.simulators.bullet_client import PANDA_URDF
from gatort.sim.simulators.panda_meshes import Part, read_parts
from gatort.sim.simulators.simulator import Scene
from gatort.sim.tasks.task import Task
from gatort.sim.trials.runner import TrialRunner, TrialSetup
from gatort.sim.trials.statistics import summarise

PANDA_XML: Final = Path(simulator_module.__file__).with_name("panda.xml")
CELL_M: Final = 0.003
"""Vertices nearer than this become one, so that the scene compiles in a second."""
FEWEST_VERTICES: Final = 4
"""MuJoCo refuses a mesh of fewer. Only a sticker of the sixth link is one."""
LINK_PREFIX: Final = "panda_"
FINGERS: Final = {"leftfinger": "left_finger", "rightfinger": "right_finger"}
"""Names of bodies in panda.xml that differ from the URDF's."""
HIDDEN_GROUP: Final = "3"
"""MuJoCo draws groups 0 to 2."""
TEXTURES: Final = {
    "floor": {
        "builtin": "gradient", "rgb1": "0.30 0.42 0.40", "rgb2": "0.42 0.52 0.47",
        "mark": "random", "markrgb": "0.75 0.74 0.66", "random": "0.06",
    },
    "sky": {"rgb1": "0.55 0.50 0.46", "rgb2": "0.33 0.30 0.29"},
    "grain": {"mark": "random", "markrgb": "0.86 0.86 0.86", "random": "0.2"},
}  # fmt: skip


def third_look(scene: Scene, folder: Path) -> Scene:
    """Write a scene of the same physics and another look into a folder, for MuJoCo."""
    root = ET.parse(scene.xml).getroot()  # noqa: S314  # our own file
    panda = ET.parse(PANDA_XML).getroot()  # noqa: S314  # our own file
    _retexture(panda)
    parts = read_parts(PANDA_URDF, CELL_M)
    _redraw(panda, [part for part in parts if len(part.vertices) >= FEWEST_VERTICES])

    for include in root.findall("include"):
        root.remove(include)
    root[:0] = list(panda)
    xml = folder / scene.xml.name
    ET.ElementTree(root).write(xml)
    return replace(scene, xml=xml)


def _retexture(panda: ET.Element) -> None:
    for texture in panda.iter("texture"):
        texture.attrib.update(TEXTURES.get(texture.get("name", ""), {}))


def _redraw(panda: ET.Element, parts: list[Part]) -> None:
    """Hide every geom of the arm and draw the parts. Numbers of the physics stay as text."""
    bodies = {body.attrib["name"]: body for body in panda.iter("body")}
    for body in bodies.values():
        for geom in body.findall("geom"):
            geom.set("group", HIDDEN_GROUP)

    assets = ET.SubElement(panda, "asset")
    for index, part in enumerate(parts):
        name = f"part_{index}"
        link = part.link.removeprefix(LINK_PREFIX)
        rgba = " ".join(map(str, (*part.colour, 1.0)))
        ET.SubElement(assets, "material", name=name, texture="grain", rgba=rgba, specular="0.2")
        ET.SubElement(
            assets,
            "mesh",
            name=name,
            inertia="shell",
            vertex=" ".join(f"{value:.6f}" for value in part.vertices.ravel()),
            face=" ".join(map(str, part.faces.ravel())),
        )
        body = bodies[FINGERS.get(link, link)]
        # MuJoCo wants the geoms of a body before its children.
        look = {"class": "link", "type": "mesh", "mesh": name, "material": name}
        body.insert(0, ET.Element("geom", look, contype="0", conaffinity="0"))


def in_third_look(task: Task, folder: Path) -> Task:
    """Return the task with its bodies in the third look."""
    changed = copy.copy(task)
    changed.scene = third_look(task.scene, folder)
    return changed


def main() -> None:
    """Run the trials, and print the success rate with its interval."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=900_200)
    args = parser.parse_args()
    choose_gl()
    load = partial(load_policy, PolicyOptions(bundle=args.bundle, threads=1))
    runner = TrialRunner(TrialSetup(load_policy=load))
    interface = runner.robot.spec

    with tempfile.TemporaryDirectory() as folder:
        task = in_third_look(runner.robot.task, Path(folder))
        runner.robot.close()
        runner.robot = make_robot("mujoco", task, runner.robot_clock, interface)
        seeds = range(args.seed, args.seed + args.episodes)
        summary = summarise([runner.run(seed) for seed in track(seeds, description="trials")])

    low, high = summary.wilson_95
    print(
        f"{summary.successes} of {summary.episodes} succeeded, {low:.1%} to {high:.1%} (Wilson 95)"
    )
    print(f"failed seeds: {sorted(summary.failures)}")


if __name__ == "__main__":
    main()
