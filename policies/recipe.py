"""The numbers of a training run, free of PyTorch, so that the command line can show them."""

from __future__ import annotations

import math

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gatort.runtime.spec import CONTINUOUS_BINS, Seed, Strict


class TrainConfig(Strict):
    """Gato's optimizer and schedule (arXiv 2205.06175, appendix C) with a shorter warm-up."""

    steps: PositiveInt = 12_000
    """Number of optimizer steps in all."""
    batch_sequences: PositiveInt = Field(default=32, le=65_536)
    """Sequences in a batch, over all processes."""
    sequence_frames: PositiveInt = 4
    """Frames in a sequence: at least the policy's window."""
    learning_rate: PositiveFloat = 1e-3
    """Highest learning rate, reached after the warm-up."""
    warmup_steps: NonNegativeInt = 200
    """Steps from a learning rate of 1e-7 to the highest."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Weight decay of AdamW."""
    label_std_bins: PositiveFloat = 6.0
    """Standard deviation of a target over neighbouring bins (HL-Gauss, Imani and White 2018,
    arXiv 1806.04613)."""
    forget_actions: float = Field(default=0.3, ge=0, le=1)
    """Share of frames whose action tokens are masked in training.

    The policy cannot learn to copy its previous action then."""
    action_noise_bins: float = Field(default=0.0, ge=0)
    """Standard deviation of noise on the past actions that the policy reads in training.

    It learns to depend little on them. So `exact` decoding, which guesses them, needs fewer
    passes."""
    consistency: float = Field(default=0.0, ge=0)
    """Weight of a loss on the change of the policy's answer under hidden or noisy past actions.

    Each sequence is then read twice, as it is and disturbed, and counts as two of a batch."""
    bin_features: NonNegativeInt = Field(default=0, le=CONTINUOUS_BINS)
    """Number of smooth features of which the embeddings of the bins are made; 0 leaves them free.

    Neighbouring bins then read nearly alike, so an action that is off by one bin changes little."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Share of sequences that skip a layer's branch."""
    shift_px: NonNegativeInt = 0
    """Largest shift of a sequence's pictures along rows and columns. Each camera draws its own.
    px"""
    colour_gain: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of the brightness of each colour of a sequence's pictures."""
    locate: float = Field(default=0.0, ge=0)
    """Weight of a second loss on the places of the bodies in the tool's frame.

    A linear layer reads them from the hidden state; it is not exported. It teaches a policy with
    cameras to localise."""
    compiled: bool = False
    """Compile the model with `torch.compile`. It pays on a GPU."""
    int4_grid: bool = False
    """Train weights that int4 holds exactly, so that int8 and int4 engines round none of them."""
    checkpoint_steps: PositiveInt = 500
    """Steps between checkpoints."""
    training_seed: Seed = 0
    """Seed of the initial weights and of the batches."""


class CourseConfig(TrainConfig):
    """A training run with rounds of DAgger."""

    rounds: NonNegativeInt = 3
    """Rounds of the policy's own rollouts after the first fit. 0 is plain cloning."""
    round_episodes: PositiveInt = 120
    """Rollouts in each round."""
    first_share: float = Field(default=0.5, gt=0, le=1)
    """Share of the steps before the first round. The rounds share the other steps equally."""
    randomise: bool = False
    """Vary arm, blocks, delay and sensors from rollout to rollout, over the ranges in
    sim/randomisation.py."""
    randomise_view: bool = False
    """Vary the pictures from rollout to rollout, over the ranges in sim/view_randomisation.py."""

    def steps_until(self, done: int) -> int:
        """Return the step count at which the fit after `done` rounds ends."""
        if done == self.rounds:
            return self.steps
        first = round(self.steps * self.first_share)
        return first + (self.steps - first) * done // self.rounds


def learning_rate(step: int, config: TrainConfig) -> float:
    """Return the learning rate: a linear warm-up from 1e-7, then a cosine down to a tenth."""
    if step < config.warmup_steps:
        return 1e-7 + (config.learning_rate - 1e-7) * step / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps))
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))
