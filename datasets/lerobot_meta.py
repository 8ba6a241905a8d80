"""The folder `meta` of a LeRobotDataset v3: description, statistics, tasks and episodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from . import lerobot_layout as layout
from .columns import OwnRecord
from .statistics import Statistics

_PANDAS: Final = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }
        for name, kind, numpy_kind in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ],
    "pandas_version": "2.2.0",
}
"""Note for pandas, with which LeRobot reads the tasks: the text of a task is its row's name."""


def task_text(own: OwnRecord) -> str:
    """Return the text of the task, without which LeRobot reads no episode."""
    return own.task or "unnamed"


def write_meta(
    folder: Path,
    own: OwnRecord,
    robot: str | None,
    features: dict[str, dict[str, Any]],
    rows: list[dict[str, Any]],
    statistics: dict[str, Statistics],
) -> None:
    """Write the folder `meta`.

    Args:
        folder: folder of the data set.
        own: specification and origin of the episodes.
        robot: name of the robot; `None` if unknown.
        features: entry of each feature in `meta/info.json`.
        rows: row of each episode, with its place in the files and its statistics.
        statistics: statistics of each feature over all episodes.
    """
    has_films = any(feature["dtype"] == "video" for feature in features.values())
    info = {
        "codebase_version": layout.VERSION,
        "robot_type": robot,
        "total_episodes": len(rows),
        "total_frames": rows[-1]["dataset_to_index"],
        "total_tasks": 1,
        "chunks_size": layout.FILES_A_CHUNK,
        "data_files_size_in_mb": layout.DATA_MB,
        "video_files_size_in_mb": layout.VIDEO_MB,
        "fps": own.spec.control_hz,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": layout.DATA_PATH,
        "video_path": layout.VIDEO_PATH if has_films else None,
        "features": features,
    }
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    _write_json(folder / layout.INFO, info)
    _write_json(folder / layout.STATISTICS, statistics)
    (folder / layout.OWN).write_text(own.model_dump_json(indent=2) + "\n", encoding="utf-8")

    tasks = pa.table({"task_index": [0], "task": [task_text(own)]})
    noted = tasks.replace_schema_metadata({"pandas": json.dumps(_PANDAS)})
    pq.write_table(noted, folder / layout.TASKS)
    episodes = folder / layout.EPISODES / "chunk-000"
    episodes.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), episodes / "file-000.parquet")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")
