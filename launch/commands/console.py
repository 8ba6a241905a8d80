"""`gatort console`: finished runs in the browser."""

from __future__ import annotations

from pathlib import Path

from gatort.console.address import Address
from gatort.console.finished import RunsFolder
from gatort.console.folder_pages import serve_folder
from gatort.launch.outputs import RUNS
from gatort.launch.report import screen
from gatort.runtime.exit_status import ExitStatus


def console(runs: Path = RUNS, /, *, listen: str | None = None) -> int:
    """Show finished runs in a browser.

    Lists the reports, recordings and pictures of a folder, with figures and plots. Prints a URL
    that works once. Ctrl-C ends it. For a live run, use `gatort run --console`.

    Parameters
    ----------
    runs
        Folder with reports (.json), recordings (.mcap) and pictures (.png).
    listen
        HOST:PORT of this computer, for a browser on another one. Not encrypted. Default: a free
        port that only this computer reaches.
    """
    terminal = screen()
    address = Address() if listen is None else Address.read(listen)
    folder = RunsFolder(runs)
    if address.warning is not None:
        terminal.print(address.warning)
    serve_folder(folder, address, lambda url: terminal.print(f"console: {url}", soft_wrap=True))
    return ExitStatus.DONE
