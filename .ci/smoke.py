"""Check the installed wheel with the base packages alone: light imports, a whole bundle."""

import importlib
import sys
from pathlib import Path

import gatort
from gatort.runtime.errors import MissingDependency

home = Path(gatort.__file__).parent
if "site-packages" not in home.parts:
    sys.exit(f"expected the installed wheel, found {home}")
for stray in ("runtime", "policies", "export", "sim", "faults", "launch", "testing", "checks"):
    if (home.parent / stray).exists():
        sys.exit(f"{stray!r} landed at the top of site-packages")
for path in sorted((home / "runtime").rglob("*.py")):
    module = ".".join(path.relative_to(home.parent).with_suffix("").parts)
    try:
        importlib.import_module(module.removesuffix(".__init__"))
    except MissingDependency:
        # The files that decode or read a camera's pictures need OpenCV, and say so.
        if not module.startswith(("gatort.runtime.robots.cameras.", "gatort.runtime.robots.tags.")):
            raise
importlib.import_module("gatort.launch.cli")
for name in set(gatort.__all__) - {"MujocoRobot", "BulletRobot"}:
    getattr(gatort, name)
heavy = {"torch", "mujoco", "onnx"} & set(sys.modules)
if heavy:
    sys.exit(f"importing the runtime and the command line must not load {sorted(heavy)}")

from gatort.runtime.bundle import verify  # noqa: E402

print(f"the wheel is whole: {verify(home / 'policies' / 'stack').name}")
