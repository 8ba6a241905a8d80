"""Load a LeRobotDataset with lerobot's own loader, and write every item as arrays.

    .venv-lerobot/bin/python -P load.py FOLDER OUT.npz

Runs in an environment of its own, without gatort.
"""

from __future__ import annotations

import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402

# torchvision's compiled operators are built for another PyTorch, and loading films needs none of
# them. It only looks this one up while it is imported.
operators = torch.library.Library("torchvision", "DEF")
operators.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402


def main(folder: str, out: str) -> None:
    """Load the data set and write every item."""
    data = LeRobotDataset("local/test", root=folder, video_backend="pyav")
    items = [data[index] for index in range(len(data))]
    arrays = {
        name: np.stack([np.asarray(item[name]) for item in items])
        for name in items[0]
        if name != "task"
    }
    np.savez(
        out,
        allow_pickle=False,
        tasks=np.array([item["task"] for item in items]),
        fps=np.int64(data.fps),
        episodes=np.int64(data.num_episodes),
        **{f"stats/{name}/mean": value["mean"] for name, value in data.meta.stats.items()},
        **arrays,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
