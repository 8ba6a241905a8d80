"""The repository keeps its own rules: who imports whom, what loads lightly, what is pinned, how large it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "runtime": set(),
    "policies": {"runtime"},
    "export": {"runtime", "policies"},
    "sim": {"runtime"},
    "launch": {"runtime", "policies", "export", "sim"},
}
LARGEST_REPOSITORY_BYTES = 40_000_000


def modules_imported_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_the_folders_that_the_design_allows(folder: str) -> None:
    allowed = MAY_IMPORT[folder] | {folder}
    for path in (ROOT / folder).rglob("*.py"):
        for module in modules_imported_by(path):
            name, _, rest = module.partition(".")
            other = rest.partition(".")[0]
            assert name not in MAY_IMPORT, f"{path}: write gatort.{module}"
            assert name != "gatort" or other not in MAY_IMPORT or other in allowed, (
                f"{path} imports {module}"
            )


def test_each_folder_is_reached_through_its_link_and_launch_stays_free_of_the_name_that_ros_uses() -> (
    None
):
    for folder in MAY_IMPORT:
        link = ROOT / "src" / "gatort" / folder
        assert link.is_symlink()
        assert link.readlink() == Path("..", "..", folder)
    assert not (ROOT / "launch" / "__init__.py").exists()


def test_the_runtime_loads_without_torch_mujoco_onnx_or_onnxruntime() -> None:
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "runtime").rglob("*.py"))
    modules = (".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files)
    lines = [f"import gatort.{module}" for module in modules]
    lines.append(
        "import sys; print(sorted({'torch', 'mujoco', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


def requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return [Requirement(line) for line in lines]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normal(name): number for name, number in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_requirement_is_pinned_at_a_version_that_it_allows() -> None:
    pinned = pins()
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[normal(requirement.name)]), requirement


def test_what_is_installed_is_what_is_pinned() -> None:
    for name, number in pins().items():
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        assert found == number, name


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_the_shipped_repository_is_smaller_than_40_megabytes() -> None:
    sizes = {path: path.lstat().st_size for path in tracked_files() if path.exists()}
    assert sum(sizes.values()) < LARGEST_REPOSITORY_BYTES, sorted(
        sizes, key=lambda path: -sizes[path]
    )[:5]


def test_every_command_that_the_readme_names_exists() -> None:
    from gatort.launch.cli import app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^gatort ([a-z]+)", text, re.MULTILINE)) | set(
        re.findall(r"`gatort ([a-z]+)", text)
    )
    targets = set(
        re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert named
    assert named <= set(app)
    assert set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    assert re.search(
        r"^make test\b", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert re.search(
        r"^make test$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE
    )
