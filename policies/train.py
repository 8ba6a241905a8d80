"""Behavioural cloning with the loss on action tokens, in plain PyTorch; `torchrun` for several processes.

The frames hold what was done, the targets what the expert would have done, so that the same code clones
demonstrations and learns from the policy's own rollouts (DAgger). Letters: B sequences in a batch, F frames in a
sequence, T tokens in a frame, S = F·T, A action tokens.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.func import functional_call

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.context import rotary_tables
from gatort.runtime.errors import (
    ConfigError,
    DemonstrationError,
)
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    SEPARATOR_ID,
    ModelDims,
    PolicySpec,
)

from .demos import Frames
from .grid import (
    snap,
    straight_through,
)
from .model import (
    Gato,
    action_positions,
    banded_mask,
)
from .recipe import (
    TrainConfig,
    learning_rate,
)

CHECKPOINT: Final = "checkpoint.safetensors"


def label_distribution(targets: Tensor, std_bins: float) -> Tensor:
    """Spread targets (…,) on the scale of bins over the bins: (…, 1024), each row summing to 1.

    The share of a bin is the mass of a normal distribution around the target inside it, so that a near miss costs
    less than a far one (Imani and White 2018; Farebrother et al. 2024, arXiv 2403.03950).
    """
    edges = torch.arange(CONTINUOUS_BINS + 1, device=targets.device)  # (1025,)
    cumulative = torch.erf((edges - targets[..., None]) / (std_bins * math.sqrt(2)))  # (…, 1025)
    mass = cumulative.diff(dim=-1)
    return mass / mass.sum(-1, keepdim=True)


class Trainer:
    """A model, its optimizer and the frames it learns from; a step is one batch."""

    def __init__(
        self,
        spec: PolicySpec,
        dims: ModelDims,
        config: TrainConfig,
        directory: Path,
        start: Gato | None = None,
    ) -> None:
        """Start anew, from the weights of `start` if it is given, or go on from the directory's checkpoint.

        Raises:
            ConfigError: a sequence is shorter than the window, or the checkpoint is of another model.
        """
        if config.sequence_frames < spec.window_frames:
            raise ConfigError(
                f"sequence_frames must be at least the window of {spec.window_frames}, found {config.sequence_frames}"
            )
        torch.manual_seed(config.training_seed)
        self.spec, self.config, self.directory = spec, config, directory
        self.rank, self.processes = (
            int(os.environ.get("RANK", "0")),
            int(os.environ.get("WORLD_SIZE", "1")),
        )
        on_gpu = torch.cuda.is_available()
        self.device = (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            if on_gpu
            else torch.device("cpu")
        )
        self.model = Gato(spec, dims, config.stochastic_depth).to(self.device)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            eps=1e-8,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self.tokens_per_s = 0.0
        positions = np.arange(config.sequence_frames * spec.frame_tokens)
        cos, sin = rotary_tables(positions.astype(np.float64), dims.head_size)
        self._cos, self._sin = (
            torch.from_numpy(cos).to(self.device),
            torch.from_numpy(sin).to(self.device),
        )
        self._local = torch.from_numpy(positions % spec.frame_tokens).to(self.device)
        self._mask = banded_mask(config.sequence_frames, spec.frame_tokens, spec.window_frames).to(
            self.device
        )
        self._rows = action_positions(config.sequence_frames, spec).to(self.device)
        self._autocast = _bf16(self.device)
        self._clock = MonotonicClock()
        if self.processes > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if (directory / CHECKPOINT).exists():
            self._resume()

    def wait_for_all(self) -> None:
        """Let the other processes catch up."""
        if self.processes > 1:
            torch.distributed.barrier()

    # -- Learning ------------------------------------------------------------------------------------------------

    def fit(
        self, frames: Frames, until_step: int, on_step: Callable[[float], None] | None = None
    ) -> None:
        """Train on `frames` until the step count; `on_step` gets the loss. Checkpoints on the way and at the end.

        Raises:
            DemonstrationError: no episode is as long as one sequence.
        """
        windows = frames.windows(self.config.sequence_frames)
        if not len(windows):
            raise DemonstrationError(
                f"expected an episode of at least {self.config.sequence_frames} ticks, found none"
            )
        self.model.train()
        rng = np.random.default_rng((self.config.training_seed, self.step, self.rank))
        while self.step < until_step:
            start_ns = self._clock.now_ns()
            batch = rng.choice(windows, self.config.batch_sequences // self.processes)
            loss = self._learn(frames, batch, rng)
            self.step += 1
            tokens = (
                self.config.batch_sequences * self.config.sequence_frames * self.spec.frame_tokens
            )
            self.tokens_per_s = tokens * 1e9 / (self._clock.now_ns() - start_ns)
            if self.step % self.config.checkpoint_steps == 0:
                self.save()
            if on_step is not None:
                on_step(loss)
        self.save()

    def _learn(self, frames: Frames, batch: np.ndarray, rng: np.random.Generator) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        loss = self._loss(frames, batch, rng)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.processes > 1:
            for parameter in self.model.parameters():
                torch.distributed.all_reduce(parameter.grad, torch.distributed.ReduceOp.AVG)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def _loss(self, frames: Frames, batch: np.ndarray, rng: np.random.Generator | None) -> Tensor:
        """Cross-entropy on the action tokens of the sequences that start at `batch` (B,)."""
        index = batch[:, None] + np.arange(self.config.sequence_frames)  # (B, F)
        ids = frames.ids[index]  # (B, F, T − p)
        if rng is not None:
            self._forget_actions(ids, rng)
        patches = (
            torch.from_numpy(frames.patches[index]).to(self.device)
            if self.spec.image_tokens
            else None
        )
        tokens = torch.from_numpy(ids).to(self.device)
        targets = torch.from_numpy(frames.targets[index]).to(self.device).flatten(1)  # (B, F·A)
        with self._autocast:
            tokens = tokens if patches is not None else tokens.flatten(1)
            inputs = (tokens, patches, self._local, self._cos, self._sin, self._mask, self._rows)
            weights = straight_through(self.model) if self.config.int4_grid else {}
            hidden = functional_call(self.model, weights, inputs)
            logits = self.model.head(hidden).float()  # (B, F·A, R)
        labels = label_distribution(targets, self.config.label_std_bins)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1))

    def _forget_actions(self, ids: np.ndarray, rng: np.random.Generator) -> None:
        """Hide past actions in some frames of `ids` (B, F, T − p): what it cannot see it cannot copy."""
        actions = self.spec.action_tokens - 1
        hidden = rng.random(ids.shape[:2]) < self.config.forget_actions  # (B, F)
        ids[..., ids.shape[-1] - actions :][hidden] = SEPARATOR_ID
        ids[..., 0][hidden] = SEPARATOR_ID

    @torch.inference_mode()
    def validation_loss(self, frames: Frames, batches: int = 8) -> float:
        """Loss on held-out frames, actions in full view; the same batches every time."""
        self.model.eval()
        rng = np.random.default_rng(0)
        windows = frames.windows(self.config.sequence_frames)
        losses = [
            self._loss(frames, rng.choice(windows, self.config.batch_sequences), None)
            for _ in range(batches)
        ]
        return float(torch.stack(losses).mean())

    def policy(self) -> Gato:
        """A copy of the model as it acts: in evaluation mode, its weights on the grid if it was trained so."""
        policy = copy.deepcopy(self.model).eval()
        if self.config.int4_grid:
            snap(policy)
        return policy

    # -- Checkpoints ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write model, optimizer state and step as one safetensors file; only the first process does."""
        if self.rank:
            return
        names = [name for name, _ in self.model.named_parameters()]
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"{moment}.{names[index]}": state[moment]
                for moment in ("exp_avg", "exp_avg_sq", "step")
            }
        tensors["step"] = torch.tensor(self.step)
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self.directory / f"{CHECKPOINT}.part"
        metadata = {"specification": self.spec.model_dump_json()}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata)
        part.rename(self.directory / CHECKPOINT)

    def _resume(self) -> None:
        tensors = load_file(self.directory / CHECKPOINT, device=str(self.device))
        names = [name for name, _ in self.model.named_parameters()]
        kept = {
            name.removeprefix("model."): t.shape
            for name, t in tensors.items()
            if name.startswith("model.")
        }
        if kept != {name: tensor.shape for name, tensor in self.model.state_dict().items()}:
            raise ConfigError(
                f"{self.directory / CHECKPOINT} is of a model with other dimensions; "
                "give the preset that it was started with, or another --out"
            )
        with safe_open(self.directory / CHECKPOINT, "pt") as file:
            if file.metadata() != {"specification": self.spec.model_dump_json()}:
                raise ConfigError(
                    f"{self.directory / CHECKPOINT} learned another specification; "
                    "give the demonstrations that it was started with, or another --out"
                )
        self.step = int(tensors.pop("step"))
        moments = ("exp_avg", "exp_avg_sq", "step")
        state = {
            i: {moment: tensors.pop(f"{moment}.{name}") for moment in moments}
            for i, name in enumerate(names)
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.model.load_state_dict(
            {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        )


def _bf16(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where the hardware computes in it, else a context that does nothing."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported()
    else:
        supported = any(
            torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16")
        )
    return torch.autocast(device.type, torch.bfloat16, enabled=supported)
