"""Read a recording with pandas and plot it.

To make a recording and plot it:

    pip install 'gatort[sim,data]'
    gatort run --record runs/stack.mcap
    python examples/read_recording.py runs/stack.mcap --out runs/stack.png
"""

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import msgspec
import pandas as pd

import gatort

mpl.use("Agg")  # Draws into a file, so that no screen is needed.


def read(recording: gatort.Recording) -> dict[str, pd.DataFrame]:
    """Return one table per kind of message, with one row per message."""
    rows = defaultdict(list)
    for stamped in recording.messages():
        row = msgspec.to_builtins(stamped.message)
        rows[type(stamped.message).__name__].append({"at_s": stamped.at_ns / 1e9, **row})
    return {kind: pd.DataFrame(found) for kind, found in rows.items()}


def main() -> None:
    """Print the duration of the ticks, and plot durations and torques."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path, help="an .mcap file")
    parser.add_argument("--out", type=Path, default=Path("recording.png"), help="picture to write")
    options = parser.parse_args()

    recording = gatort.Recording(options.recording)
    tables = read(recording)

    ticks = tables["TickMessage"].set_index("tick")
    ticks["took_ms"] = [(stamps[-1] - stamps[0]) / 1e6 for stamps in ticks["stamps_ns"]]
    print(ticks["took_ms"].describe(percentiles=[0.5, 0.99]))

    # `limited` is the command that the guard sent to the robot, one value per actuator.
    sent = tables["CommandMessage"].set_index("tick")["limited"].dropna()
    names = [actuator.name for actuator in recording.run.interface.actuators]
    commands = pd.DataFrame(sent.tolist(), index=sent.index, columns=names)

    axes = ticks["took_ms"].plot(subplots=True, figsize=(10, 6), layout=(2, 1), ylabel="ms")
    commands.plot(ax=axes[0, 0].figure.add_subplot(2, 1, 2), ylabel="command", legend="upper right")
    axes[0, 0].figure.savefig(options.out)
    print(f"{len(ticks)} ticks in {options.out}")


if __name__ == "__main__":
    main()
