"""Files of a data set, which anybody may have written: regular ones inside its folder."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

from gatort.runtime.errors import DemonstrationError
from gatort.runtime.regular_file import open_regular


def open_own(path: Path, what: str) -> BufferedReader:
    """Open a file of a data set. A link is refused: it may lead anywhere.

    Args:
        path: path of the file.
        what: noun for its content, for the error's sentence.

    Raises:
        DemonstrationError: it is a link, no regular file, or cannot be read.
    """
    try:
        return open_regular(path, what, DemonstrationError, follow_links=False)
    except DemonstrationError as error:
        if not path.is_symlink():
            raise
        raise DemonstrationError(
            f"{path}: expected {what}, found a link; copy the data set with `cp -rL` first"
        ) from error
