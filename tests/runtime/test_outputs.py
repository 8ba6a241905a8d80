"""Files are written whole or not at all, and by one process at a time."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gatort.runtime.errors import OutputError
from gatort.runtime.outputs import one_writer, require_folder, require_place, whole_file

HOLD = (
    "import sys; from pathlib import Path; from gatort.runtime.outputs import one_writer\n"
    "with one_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_older_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.touch()
    with (
        full_disk(),
        pytest.raises(OutputError, match=r"^cannot write .*t\.json: File too large$"),
        whole_file(path) as partial,
    ):
        partial.write_text("figures")
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), whole_file(tmp_path / "t.json") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_second_writer_is_refused_until_the_first_is_gone_even_by_sigkill(
    tmp_path: Path,
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(OutputError, match="found another process that does"),
            one_writer(tmp_path),
        ):
            pass
        holder.kill()
        holder.wait()
        with one_writer(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_folder_is_checked_by_trying_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    require_folder(tmp_path / "new" / "folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/new")):
        with pytest.raises(OutputError, match=r"cannot write into .*: expected a folder"):
            require_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_place_is_checked_by_trying(tmp_path: Path) -> None:
    require_place(tmp_path / "t.json")
    with pytest.raises(OutputError, match="there is no directory"):
        require_place(tmp_path / "no" / "t.json")
    with pytest.raises(OutputError, match=r"cannot write /proc/t\.json"):
        require_place(Path("/proc/t.json"))
