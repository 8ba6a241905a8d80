"""The repository keeps its own rules: links, light imports, pins, size and commands."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from checks.sources import FOLDERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LARGEST_REPOSITORY_BYTES = 40_000_000


def test_each_folder_has_its_link_and_those_named_like_packages_have_no_init_file() -> None:
    for folder in FOLDERS:
        link = ROOT / "src" / "gatort" / folder
        assert link.is_symlink()
        assert link.readlink() == Path("..", "..", folder)
    for folder in ("launch", "datasets"):
        assert not (ROOT / folder / "__init__.py").exists()


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


def test_each_installed_package_has_the_pinned_version() -> None:
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


def code_of(page: Path) -> str:
    """Return the fenced blocks and the inline code of a page, one a line."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", text)
    return "\n".join([*fenced, *inline])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_target_that_a_page_names_exists(page: Path) -> None:
    from gatort.launch.cli import app

    code = code_of(page)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"^gatort ([a-z]+)", code, re.MULTILINE)) <= set(app)
    assert set(re.findall(r"^make ([a-z]+)", code, re.MULTILINE)) <= targets


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    for path in (ROOT / "README.md", ROOT / ".ci" / "run"):
        assert re.search(r"^make test\b", path.read_text(encoding="utf-8"), re.MULTILINE)
