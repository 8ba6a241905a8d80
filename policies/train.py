"""Behavioural cloning with the loss on action tokens, in plain PyTorch.

The frames hold the actions that were taken, and the targets hold the expert's actions. So the same
code clones demonstrations and learns from the policy's own rollouts (DAgger). `torchrun` shares a
batch out over several processes.

Letters: B sequences in a batch, F frames in a sequence, T tokens in a frame, S = F·T,
A action tokens.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.func import functional_call

from gatort.runtime.clock import MonotonicClock
from gatort.runtime.context import rotary_tables
from gatort.runtime.errors import ConfigError, DemonstrationError, TrainingError
from gatort.runtime.interruption import Postponed
from gatort.runtime.outputs import whole_file
from gatort.runtime.regular_file import by_descriptor, open_regular
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    SEPARATOR_ID,
    ModelDims,
    PolicySpec,
)
from gatort.runtime.tensors import TensorKind, read_tensors

from .batches import Batch, ahead
from .demos import Frames
from .grid import snap, straight_through
from .model import Gato, action_positions, banded_mask
from .pictures import cut, varied
from .recipe import TrainConfig, learning_rate
from .weights import save_tensors

CHECKPOINT: Final = "checkpoint.safetensors"
MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")
"""AdamW's state of each parameter."""
_OTHER_CHECKPOINT: Final = "remove its folder to begin anew, or put an earlier one in its place"
PLACE_SCALE_M: Final = 0.1
"""Unit of the second loss."""
FARTHEST_M: Final = 0.5
"""Places are clipped here, because a picture hardly tells distances beyond it."""


def label_distribution(targets: Tensor, std_bins: float) -> Tensor:
    """Spread targets (…,) on the scale of bins over the bins: (…, 1024), each row sums to 1.

    A bin's share is the mass, inside the bin, of a normal distribution around the target. A near
    miss then costs less than a far one (Imani and White 2018; Farebrother et al. 2024, arXiv
    2403.03950).
    """
    edges = torch.arange(CONTINUOUS_BINS + 1, device=targets.device)  # (1025,)
    cumulative = torch.erf((edges - targets[..., None]) / (std_bins * math.sqrt(2)))  # (…, 1025)
    mass = cumulative.diff(dim=-1)
    return mass / mass.sum(-1, keepdim=True)


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean divergence between logits (…, R) in both directions (Kullback–Leibler)."""
    log_p, log_q = F.log_softmax(one, -1), F.log_softmax(other, -1)  # (…, R)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean() / 2


class Trainer:
    """A model and its optimizer. A step is one batch.

    Args:
        spec: observations and actuators.
        dims: dimensions of the model.
        config: optimizer and schedule.
        directory: folder of the checkpoint, from which the trainer continues if there is one.
        start: model whose weights training starts from. Default: random weights.
        bodies: number of bodies whose places the second loss reads, see `TrainConfig.locate`.
        origin: lines on the demonstrations and on the weights that training starts from, kept in
            the checkpoint.
        device: device to train on. Default: this process's GPU if there is one, else the CPU.

    Raises:
        ConfigError: a sequence is shorter than the window, a batch has no room for a pair, or the
            checkpoint is of another model or another origin.
    """

    def __init__(
        self,
        spec: PolicySpec,
        dims: ModelDims,
        config: TrainConfig,
        directory: Path,
        start: Gato | None = None,
        bodies: int = 0,
        origin: Sequence[str] = (),
        device: torch.device | None = None,
    ) -> None:
        if config.sequence_frames < spec.window_frames:
            raise ConfigError(
                f"sequence_frames: expected at least the window of {spec.window_frames}, "
                f"found {config.sequence_frames}"
            )
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if config.consistency and config.batch_sequences < 2 * processes:
            raise ConfigError(
                f"batch_sequences: expected at least {2 * processes} with --consistency, which "
                f"reads each sequence twice, found {config.batch_sequences}"
            )
        torch.manual_seed(config.training_seed)
        self.spec = spec
        self.config = config
        self.directory = directory
        self.origin = list(origin)
        self.rank = int(os.environ.get("RANK", "0"))
        self.processes = processes
        self.device = device or _device()

        self.model = Gato(spec, dims, config.stochastic_depth)
        if start is not None:
            self.model.load_state_dict(start.state_dict())
        if config.bin_features:
            self.model.smooth_table(config.bin_features)
        self.locator = nn.Linear(dims.width, 3 * bodies) if bodies else nn.Identity()
        """Reads the places of the bodies from the hidden state; it is not exported."""
        self.model.to(self.device)
        self.locator.to(self.device)
        self._learned = nn.ModuleDict({"model": self.model, "locator": self.locator})
        self._run = torch.compile(self.model) if config.compiled else self.model
        self.optimizer = torch.optim.AdamW(
            self._learned.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            eps=1e-8,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.step = 0
        self.saved_step = 0
        """Step of the checkpoint."""
        self.tokens_per_s = 0.0
        self._clock = MonotonicClock()
        self._allocate_inputs()

        if self.processes > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if (directory / CHECKPOINT).exists():
            self._resume()

    def _allocate_inputs(self) -> None:
        """Make the inputs that are the same in every batch."""
        spec = self.spec
        config = self.config
        device = self.device
        positions = np.arange(config.sequence_frames * spec.frame_tokens)
        cos, sin = rotary_tables(positions.astype(np.float64), self.model.dims.head_size)
        mask = banded_mask(config.sequence_frames, spec.frame_tokens, spec.window_frames)
        self._cos = torch.from_numpy(cos).to(device)
        self._sin = torch.from_numpy(sin).to(device)
        self._local = torch.from_numpy(positions % spec.frame_tokens).to(device)
        self._mask = mask.to(device)
        self._rows = action_positions(config.sequence_frames, spec).to(device)
        self._autocast = _bf16(device)

    def wait_for_all(self) -> None:
        """Wait until every process has come here."""
        if self.processes > 1:
            torch.distributed.barrier()

    # -- Learning ----------------------------------------------------------------------------

    def fit(
        self, frames: Frames, until_step: int, on_step: Callable[[float], None] | None = None
    ) -> None:
        """Train until a step count, with checkpoints on the way, at the end and at Ctrl-C.

        Args:
            frames: frames to learn from.
            until_step: step count at the end. A step that has been reached trains no further.
            on_step: called with the loss after each step.

        Raises:
            DemonstrationError: no episode is as long as one sequence.
        """
        windows = frames.windows(self.config.sequence_frames)
        if not len(windows):
            raise DemonstrationError(
                f"expected an episode of at least {self.config.sequence_frames} ticks, found none"
            )
        if self.config.locate and not len(frames.places):
            raise DemonstrationError(
                "--locate: expected episodes with the places of their bodies, found some without; "
                "make them with `gatort demos`, or leave out --locate"
            )

        self.model.train()
        rng = np.random.default_rng((self.config.training_seed, self.step, self.rank))
        batches = self._batches(frames, windows, until_step - self.step, rng)
        start_ns = self._clock.now_ns()
        try:
            for batch in ahead(batches):
                with Postponed():  # A signal must not cut a step in two.
                    loss = self._learn(batch, rng)
                    self.step += 1
                now_ns = self._clock.now_ns()
                self.tokens_per_s = self._batch_tokens * 1e9 / (now_ns - start_ns)
                start_ns = now_ns

                if self.step % self.config.checkpoint_steps == 0:
                    self.save()
                if on_step is not None:
                    on_step(loss)
        except KeyboardInterrupt:
            if self.step > self.saved_step:
                self.save()
            raise
        self.save()

    @property
    def _batch_tokens(self) -> int:
        sequence_tokens = self.config.sequence_frames * self.spec.frame_tokens
        return self.config.batch_sequences * sequence_tokens

    def _batches(
        self, frames: Frames, windows: NDArray[np.int64], count: int, rng: np.random.Generator
    ) -> Iterator[Batch]:
        """Draw batches, the past actions hidden at random in some frames."""
        picks = rng.spawn(1)[0]
        size = self.config.batch_sequences // self.processes
        pairs = size // 2 if self.config.consistency else 0
        for _ in range(count):
            starts = picks.choice(windows, pairs or size)
            batch = Batch.of(frames, starts, self.config.sequence_frames)
            if pairs:
                batch = batch.paired()
            # The first of each pair stays as the policy will read it.
            disturbed = batch.ids[pairs:]
            self._disturb_actions(disturbed, picks)
            self._forget_actions(disturbed, picks)
            yield batch

    def _learn(self, batch: Batch, rng: np.random.Generator) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        loss = self._loss(batch, rng)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.processes > 1:
            for parameter in self._learned.parameters():
                torch.distributed.all_reduce(parameter.grad, torch.distributed.ReduceOp.AVG)
        norm = torch.nn.utils.clip_grad_norm_(self._learned.parameters(), 1.0)
        value = loss.item()
        if not (math.isfinite(value) and torch.isfinite(norm)):
            raise TrainingError(
                f"step {self.step}: expected a finite loss and gradient, found loss {value:g}; "
                f"{self.directory / CHECKPOINT} keeps the last good weights: go on from there "
                "with a lower --learning-rate"
            )
        self.optimizer.step()
        if self.config.bin_features:
            self.model.smooth_table(self.config.bin_features)
        return value

    def _loss(self, batch: Batch, rng: np.random.Generator | None) -> Tensor:
        """Return the cross-entropy on the action tokens of a batch, and the loss of the places.

        Pictures are varied at random, unless `rng` is `None`.
        """
        tokens = self._moved(batch.ids)  # (B, F, T − p)
        targets = self._moved(batch.targets).flatten(1)  # (B, F·A)
        patches = self._patches(batch, rng)
        if patches is None:
            tokens = tokens.flatten(1)

        with self._autocast:
            inputs = (tokens, patches, self._local, self._cos, self._sin, self._mask, self._rows)
            hidden = self._hidden(inputs)  # (B, F·A, D)
            logits = self.model.head(hidden).float()  # (B, F·A, R)
        labels = label_distribution(targets, self.config.label_std_bins)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="none")
        # A tick without a label is only the past of others.
        learned = self._moved(batch.labelled).float().flatten()  # (B·F,)
        losses = losses.reshape(-1, self.spec.action_tokens).mean(1)  # (B·F,)
        loss: Tensor = losses @ learned / learned.sum()
        if self.config.consistency and rng is not None:
            loss = loss + self.config.consistency * _difference(*logits.chunk(2))
        if self.config.locate and rng is not None:
            loss = loss + self.config.locate * self._places_loss(hidden, batch)
        return loss

    def _hidden(self, inputs: tuple[Tensor | None, ...]) -> Tensor:
        """Run the model, with its weights on the grid if it learns there."""
        if self.config.int4_grid:
            hidden: Tensor = functional_call(self.model, straight_through(self.model), inputs)
        else:
            hidden = self._run(*inputs)
        return hidden

    def _patches(self, batch: Batch, rng: np.random.Generator | None) -> Tensor | None:
        if not batch.pictures:
            return None
        pictures = [self._moved(picture) for picture in batch.pictures]  # (B, F, H, W, 3) each
        if rng is not None:
            config = self.config
            pictures = [
                varied(picture, config.shift_px, config.colour_gain, rng) for picture in pictures
            ]
        patches = cut(pictures)  # (B, F, p, …), or (B / 2, F, p, …) of pairs
        return patches.repeat(len(batch.ids) // len(patches), *[1] * (patches.dim() - 1))

    def _places_loss(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return the error of the places that the first action position of each frame shows."""
        first = hidden[:, :: self.spec.action_tokens].float()  # (B, F, D)
        found = self.locator(first)  # (B, F, 3·bodies)
        places = self._moved(batch.places).flatten(2)  # (B, F, 3·bodies)
        near = places.clamp(-FARTHEST_M, FARTHEST_M)
        return F.smooth_l1_loss(found, near / PLACE_SCALE_M, beta=0.1)

    def _moved(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def _disturb_actions(self, ids: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Add noise to the past actions in `ids` (B, F, T − p)."""
        if not self.config.action_noise_bins:
            return
        last = FIRST_CONTINUOUS_ID + CONTINUOUS_BINS - 1
        actions = self.spec.action_tokens - 1
        for part in (ids[..., :1], ids[..., ids.shape[-1] - actions :]):
            noise = np.rint(rng.normal(0.0, self.config.action_noise_bins, part.shape))
            moved = np.clip(part + noise.astype(np.int64), FIRST_CONTINUOUS_ID, last)
            np.copyto(part, moved, where=part != SEPARATOR_ID)  # No action precedes the first.

    def _forget_actions(self, ids: NDArray[np.int64], rng: np.random.Generator) -> None:
        """Hide past actions in some frames of `ids` (B, F, T − p), so that they are not copied."""
        actions = self.spec.action_tokens - 1
        hidden = rng.random(ids.shape[:2]) < self.config.forget_actions  # (B, F)
        ids[..., ids.shape[-1] - actions :][hidden] = SEPARATOR_ID
        ids[..., 0][hidden] = SEPARATOR_ID

    @torch.inference_mode()
    def validation_loss(self, frames: Frames, batches: int = 8) -> float:
        """Return the loss on held-out frames, with no action hidden and always the same batches."""
        self.model.eval()
        rng = np.random.default_rng(0)
        length = self.config.sequence_frames
        windows = frames.windows(length)
        drawn = (rng.choice(windows, self.config.batch_sequences) for _ in range(batches))
        losses = [self._loss(Batch.of(frames, starts, length), None) for starts in drawn]
        return float(torch.stack(losses).mean())

    def policy(self) -> Gato:
        """Return a copy of the model that can act, on the CPU, where it is exported.

        It is in evaluation mode, and its weights lie on the grid if it was trained there.
        """
        policy = copy.deepcopy(self.model).cpu().eval()
        if self.config.int4_grid:
            snap(policy)
        return policy

    # -- Checkpoints -------------------------------------------------------------------------

    def save(self) -> None:
        """Write model, optimizer state and step as one safetensors file, in the first process.

        Raises:
            OutputError: the file cannot be written. The checkpoint before it stays.
        """
        if self.rank:
            return
        names = [name for name, _ in self._learned.named_parameters()]
        tensors = dict(self._learned.state_dict())
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{moment}.{names[index]}": state[moment] for moment in MOMENTS}
        tensors["step"] = torch.tensor(self.step)

        self.directory.mkdir(parents=True, exist_ok=True)
        metadata = {
            "specification": self.spec.model_dump_json(),
            "origin": json.dumps(self.origin),
        }
        with whole_file(self.directory / CHECKPOINT) as partial:
            save_tensors(tensors, partial, metadata)
        self.saved_step = self.step

    def _resume(self) -> None:
        """Read the checkpoint: names, shapes and types first, then the tensors.

        Raises:
            ConfigError: it cannot be read, is of another model or specification, or holds a number
                that is not finite.
        """
        path = self.directory / CHECKPOINT
        names = [name for name, _ in self._learned.named_parameters()]
        with open_regular(path, "a checkpoint", ConfigError) as file:
            self._check(path, file)
            tensors = dict(
                read_tensors(
                    file,
                    path,
                    self._kinds(),
                    ConfigError,
                    framework="pt",
                    exactly=True,
                    device=str(self.device),
                )
            )
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all() or (name.endswith("step") and (tensor < 0).any()):
                raise ConfigError(
                    f"{path}: {name}: expected finite numbers, found others; {_OTHER_CHECKPOINT}"
                )

        self.step = self.saved_step = int(tensors.pop("step"))
        state = {
            index: {moment: tensors.pop(f"{moment}.{name}") for moment in MOMENTS}
            for index, name in enumerate(names)
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._learned.load_state_dict(tensors)

    def _kinds(self) -> dict[str, TensorKind]:
        """Return the shape and type of each tensor of a checkpoint of this model."""
        kinds = {
            name: TensorKind(tuple(tensor.shape))
            for name, tensor in self._learned.state_dict().items()
        }
        for name, parameter in self._learned.named_parameters():
            for moment in MOMENTS:
                shape = () if moment == "step" else tuple(parameter.shape)
                kinds[f"{moment}.{name}"] = TensorKind(shape)
        return kinds | {"step": TensorKind((), "I64")}

    def _check(self, path: Path, file: IO[bytes]) -> None:
        """Check that a checkpoint is of this model and specification."""
        try:
            with safe_open(by_descriptor(file), "pt") as stored:
                metadata = stored.metadata() or {}
                kept = {
                    name: tuple(stored.get_slice(name).get_shape())
                    for name in stored.keys()  # noqa: SIM118  # no mapping
                    if name.startswith(("model.", "locator."))
                }
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{path}: expected a whole checkpoint, found one that cannot be read ({error}); "
                f"{_OTHER_CHECKPOINT}"
            ) from error

        wanted = {name: tuple(each.shape) for name, each in self._learned.state_dict().items()}
        if kept != wanted:
            raise ConfigError(
                f"{path}: expected a model of the dimensions asked for, found one with other "
                "dimensions; give the --preset and --locate that it was started with, or another "
                "--out"
            )
        if metadata.get("specification") != self.spec.model_dump_json():
            raise ConfigError(
                f"{path}: expected the specification of the demonstrations, found another "
                "specification; give the demonstrations that it was started with, or another --out"
            )
        self._check_origin(path, metadata.get("origin"))

    def _check_origin(self, path: Path, kept: str | None) -> None:
        """Check that a checkpoint has learned from the same demonstrations. An older one may not
        say from which.
        """
        if kept is None:
            return
        for before, now in zip_longest(json.loads(kept), self.origin, fillvalue="none"):
            if before != now:
                raise ConfigError(
                    f"{path}: expected to go on with {before}; found {now}; give the "
                    "demonstrations that it was started with, or another --out"
                )


def _device() -> torch.device:
    """Return this process's GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def _bf16(device: torch.device) -> torch.autocast:
    """Return an autocast to bfloat16 if the hardware computes in it, else one that does nothing."""
    if device.type == "cuda":
        supported = torch.cuda.is_bf16_supported()
    else:
        capabilities = torch.cpu.get_capabilities()
        supported = device.type == "cpu" and any(
            capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16")
        )
    kind = "cuda" if device.type == "cuda" else "cpu"
    return torch.autocast(kind, torch.bfloat16, enabled=supported)
