"""Flags of the commands that can have a console."""

from __future__ import annotations

from gatort.runtime.errors import ConfigError
from gatort.runtime.spec import Strict

from .address import Address


class ConsoleFlags(Strict):
    """Console beside a robot's process."""

    console: bool = False
    """Show state and Stop in a browser; prints a URL, which works once."""
    listen: str | None = None
    """HOST:PORT of this computer where the console listens, for a browser on another computer or a
    phone. Not encrypted. Default: a free port that only this computer reaches."""

    @property
    def address(self) -> Address | None:
        """Address of the console; `None` if no console is asked for.

        Raises:
            ConfigError: a flag of a console is given without `--console`, or the address cannot be.
        """
        if not self.console:
            ignored = sorted(self.model_fields_set - {"console"})
            if ignored:
                flag = f"--{ignored[0].replace('_', '-')}"
                raise ConfigError(f"{flag} is for a console: add --console, or leave it out")
            return None
        return Address() if self.listen is None else Address.read(self.listen)


class RunConsoleFlags(ConsoleFlags):
    """Console beside a run."""

    stop_when_unwatched: bool = False
    """Begin when a page of the console holds the run, and stop 2 s after no such page is seen."""
