"""The compiler leaves nothing behind, however its work ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import eventually

from gatort.runtime.compiler import compiled
from gatort.runtime.errors import ConfigError

LONG = "#define A(x) x x x x x x x x x x\nint n;\nvoid f(void) { A(A(A(A(A(n *= n + 3;))))) }\n"
"""Source that GCC works on for many seconds."""
PROGRAM = """
import sys
from pathlib import Path
from gatort.runtime.compiler import compiled
from gatort.runtime.errors import ConfigError

with compiled(Path(sys.argv[1]), ("-O3", "-shared", "-fPIC"), "the test", ConfigError):
    pass
"""


WORKERS = f"""
import sys
from functools import partial
from gatort.sim.workers import spread

if __name__ == "__main__":
    program = {PROGRAM!r}.replace("sys.argv[1]", repr(sys.argv[1]))
    list(spread(partial(exec, program), [1, 2], 2))
"""


@pytest.mark.native
@pytest.mark.parametrize(
    ("program", "number"),
    [(PROGRAM, signal.SIGINT), (WORKERS, signal.SIGINT), (WORKERS, signal.SIGKILL)],
)
def test_an_interrupted_compiler_ends_and_leaves_no_file(
    tmp_path: Path, program: str, number: signal.Signals
) -> None:
    source = tmp_path / "long.c"
    source.write_text(LONG)
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(source)],
        env={**os.environ, "TMPDIR": str(folder)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        # GCC has made its first file of assembler code, so `cc1` runs.
        eventually(lambda: any(folder.glob("**/*.s")))
        assert not any(folder.glob("*.s"))
        process.send_signal(number)
        process.wait(60)
        eventually(lambda: not any(folder.iterdir()) and not compiling(source))
    finally:
        process.kill()
        process.wait()


@pytest.mark.native
def test_a_refused_file_gives_the_complaint_of_the_compiler(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int f(void) { return nothing; }\n")
    with (
        pytest.raises(ConfigError, match=r"cannot compile wrong.c:\n(.|\n)*nothing"),
        compiled(source, (), "the test", ConfigError),
    ):
        pass


def compiling(source: Path) -> list[str]:
    """Return the command lines of processes that compile a file."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # It has ended.
            continue
        if str(source) in line:
            found.append(line)
    return found
