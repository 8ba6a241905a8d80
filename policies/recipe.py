"""The numbers of a training run, free of PyTorch so that the command line can show them."""

from __future__ import annotations

import math

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gatort.runtime.spec import Strict


class TrainConfig(Strict):
    """Gato's optimizer and schedule (arXiv 2205.06175, appendix C), its warm-up shortened to the run."""

    steps: PositiveInt = 12_000
    """Optimizer steps in all."""
    batch_sequences: PositiveInt = 32
    """Sequences in a batch, over all processes."""
    sequence_frames: PositiveInt = 4
    """Frames in a sequence: at least the policy's window."""
    learning_rate: PositiveFloat = 1e-3
    """The highest, after warm-up."""
    warmup_steps: NonNegativeInt = 200
    """Steps from 1e-7 to the highest learning rate."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of AdamW."""
    label_std_bins: PositiveFloat = 6.0
    """Width of a target over neighbouring bins (HL-Gauss, Imani and White 2018, arXiv 1806.04613)."""
    forget_actions: float = Field(default=0.3, ge=0, le=1)
    """Share of frames whose action tokens are hidden, against copying the previous action."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Share of sequences that skip a layer's branch."""
    int4_grid: bool = False
    """Train the weights where int4 holds them exactly, so that a policy compiled to int8 or int4 is the same one."""
    checkpoint_steps: PositiveInt = 500
    """Steps between checkpoints."""
    training_seed: int = 0
    """Draws weights and batches."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up from 1e-7, then a cosine down to a tenth."""
    if step < config.warmup_steps:
        return 1e-7 + (config.learning_rate - 1e-7) * step / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))
