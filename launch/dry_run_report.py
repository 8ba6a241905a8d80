"""Outcome of a dry run: a sentence, a table of joints, and JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from gatort.runtime.envelope import LIMIT_MARGIN_RAD
from gatort.runtime.wording import counted
from gatort.sim.prediction import Forecast

from .report import alarming


def dry_run_sentence(forecast: Forecast) -> str:
    """Return the verdict in one line."""
    commands = counted(forecast.ticks, "command")
    if not forecast.ticks:
        return "dry run: no command was there to predict"
    if not forecast.broken:
        return f"dry run: none of {commands} would have broken a limit of the arm"
    return (
        f"dry run: {forecast.broken} of {commands} would have broken a limit of the arm; "
        f"{forecast.first}"
    )


def dry_run_table(forecast: Forecast) -> Table:
    """Lay out the extremes, one row per joint."""
    caption = (
        "largest values and smallest distance to a joint limit, a period after each command; the "
        "arm stayed where it was, so torques are larger than in a run that moves it"
    )
    table = Table(caption=caption, caption_justify="left")
    for column in ("joint", "torque N·m", "change N·m", "speed rad/s", "to limit rad"):
        table.add_column(column, justify="right")
    rows = zip(
        forecast.torque_nm,
        forecast.torque_change_nm,
        forecast.speed_rad_s,
        forecast.room_rad,
        strict=True,
    )
    for number, (torque_nm, change_nm, speed_rad_s, room_rad) in enumerate(rows, 1):
        room = alarming(f"{room_rad:.3f}", room_rad < LIMIT_MARGIN_RAD)
        table.add_row(
            str(number), f"{torque_nm:.2f}", f"{change_nm:.2f}", f"{speed_rad_s:.3f}", room
        )
    return table


def dry_run_record(forecast: Forecast) -> dict[str, Any]:
    """Return the JSON form."""
    return {
        "ticks": forecast.ticks,
        "broken": forecast.broken,
        "first": forecast.first,
        "torque_nm": forecast.torque_nm.tolist(),
        "torque_change_nm": forecast.torque_change_nm.tolist(),
        "speed_rad_s": forecast.speed_rad_s.tolist(),
        "room_rad": forecast.room_rad.tolist() if forecast.ticks else None,
    }
