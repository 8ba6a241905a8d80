"""Kinds of reports, the version of each kind's keys, and the origin that every report carries.

docs/reports.md lists the keys of each kind, and says when a version is raised.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import first_error
from gatort.sim.trials.journal import Journal

ReportKind = Literal[
    "run", "serve", "profile", "trials", "sweep", "study", "robustness", "convert",
    "compare", "info", "replay", "parity", "compile", "engines", "faults", "cameras",
    "doctor",
]  # fmt: skip
VERSIONS: Final[dict[str, int]] = {**dict.fromkeys(get_args(ReportKind), 1), "info": 2}
"""Version of each kind's keys."""


class ReportOrigin(BaseModel):
    """The key `report` of a report."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: str
    """Kind of the report."""
    version: int = Field(alias="schema")
    """Version of the kind's keys."""
    gatort: str
    """Version of gatort that wrote it."""
    date: str
    """Date in UTC."""


def origin_record(kind: ReportKind, journals: Sequence[Journal]) -> dict[str, Any]:
    """Return the origin of a report that is written now.

    Args:
        kind: kind of the report.
        journals: files of trials, the last of which gives the report its date. Default: now.
    """
    written = [written_s for each in journals if (written_s := each.written_s) is not None]
    date = datetime.fromtimestamp(max(written), UTC) if written else datetime.now(UTC)
    return {
        "kind": kind,
        "schema": VERSIONS[kind],
        "gatort": version("gatort"),
        "date": date.isoformat(timespec="seconds"),
        "command": shlex.join(["gatort", *sys.argv[1:]]),
    }


def read_origin(path: Path, report: dict[str, Any], kinds: Sequence[str]) -> ReportOrigin:
    """Return a report's origin.

    Args:
        path: file of the report.
        report: its content.
        kinds: kinds that the caller reads.

    Raises:
        ConfigError: it is of another kind or version, or has no origin.
    """
    commands = " or ".join(f"`gatort {kind}`" for kind in kinds)
    if "report" not in report:
        raise ConfigError(f"{path}: expected a report of {commands} (--json), found another file")
    try:
        origin = ReportOrigin.model_validate(report["report"])
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {first_error(error, 'report')}; make the report again with this gatort"
        ) from error
    if origin.kind not in kinds:
        raise ConfigError(
            f"{path}: expected a report of {commands}, found one of the kind {origin.kind!r}"
        )
    if origin.version != (expected := VERSIONS[origin.kind]):
        raise ConfigError(
            f"{path}: expected version {expected} of the kind {origin.kind}, found version "
            f"{origin.version}, written by gatort {origin.gatort}; make it again with this gatort"
        )
    return origin
