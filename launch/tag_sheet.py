"""Sheets with the faces of tagged cubes, to be printed at their exact size, as a PDF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gatort.runtime.outputs import MARK, whole_file
from gatort.runtime.packages import require_packages
from gatort.runtime.robots.tags.cubes import FACES, TaggedCube
from gatort.runtime.robots.tags.faces import draw_face

from .drawing import announced
from .outputs import real_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHEET_M: Final = (0.21, 0.297)
"""A4."""
MARGIN_M: Final = 0.02
RULER_M: Final = 0.1
METRE_IN: Final = 1 / 0.0254
FACE_PIXELS: Final = 600
COLUMNS: Final = 2
GAP_M: Final = 0.012


@announced
def draw_sheets(path: Path, cubes: Mapping[str, TaggedCube]) -> None:
    """Write a page for each cube: six faces to be cut out along their lines, and a ruler.

    Raises:
        MissingDependency: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    require_packages("sheets of tags", "trials", "matplotlib")
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    with (
        whole_file(real_path(path)) as partial,
        PdfPages(partial, metadata={"Creator": MARK}) as pages,
    ):
        for name, cube in cubes.items():
            figure = Figure(figsize=(SHEET_M[0] * METRE_IN, SHEET_M[1] * METRE_IN))
            _draw_cube(figure, name, cube)
            pages.savefig(figure)


def _draw_cube(figure: Figure, name: str, cube: TaggedCube) -> None:
    edge_m = cube.edge_m
    for face, title in enumerate(FACES):
        left_m = MARGIN_M + face % COLUMNS * (edge_m + GAP_M)
        top_m = SHEET_M[1] - 2 * MARGIN_M - face // COLUMNS * (edge_m + GAP_M)
        axes = _axes(figure, left_m, top_m - edge_m, edge_m, edge_m)
        axes.imshow(draw_face(cube, face, FACE_PIXELS), cmap="gray", interpolation="none")
        axes.set_title(f"{title}, tag {cube.tags[face]}", fontsize=7, pad=2)

    ruler = _axes(figure, MARGIN_M, MARGIN_M, RULER_M, 0.002)
    ruler.set_title(
        f"{name}: edge {1e3 * edge_m:g} mm. This ruler is {1e3 * RULER_M:g} mm long; if it is not, "
        "print at 100 %.",
        fontsize=8,
        loc="left",
    )


def _axes(figure: Figure, left_m: float, bottom_m: float, width_m: float, height_m: float) -> Any:
    """Return a framed area of a sheet without ticks, whose frame is the line to cut along."""
    across, up = SHEET_M
    axes = figure.add_axes((left_m / across, bottom_m / up, width_m / across, height_m / up))
    axes.set_xticks([])
    axes.set_yticks([])
    for line in axes.spines.values():
        line.set_linewidth(0.3)
    return axes
