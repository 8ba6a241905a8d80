"""Training: schedule, labels, frames, checkpoints."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gatort.policies.batches import Batch
from gatort.policies.demos import Frames, join, tokenize
from gatort.policies.model import action_positions, banded_mask
from gatort.policies.presets import preset
from gatort.policies.recipe import TrainConfig, learning_rate
from gatort.policies.train import Trainer, label_distribution
from gatort.runtime.context import rotary_tables
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError, DemonstrationError, TrainingError
from gatort.runtime.spec import (
    CONTINUOUS_BINS,
    FIRST_CONTINUOUS_ID,
    SEPARATOR_ID,
    ObservationKey,
    PolicySpec,
)
from gatort.runtime.tokenizer import Tokenizer

CONFIG = TrainConfig(
    steps=60, batch_sequences=4, sequence_frames=4, learning_rate=3e-3, warmup_steps=5
)


def episode(spec: PolicySpec, ticks: int, seed: int = 0) -> Episode:
    """Return an episode whose expert always does the same, and whose actions were random."""
    rng = np.random.default_rng(seed)
    lows = np.array([actuator.low for actuator in spec.actuators])
    highs = np.array([actuator.high for actuator in spec.actuators])
    return Episode(
        seed=seed,
        succeeded=True,
        observations=tuple(
            rng.uniform(-1, 1, (ticks, *key.shape)).astype(key.dtype) for key in spec.observations
        ),
        actions=rng.uniform(lows, highs, (ticks, len(lows))).astype(np.float32),
        expert_actions=np.tile(lows + 0.3 * (highs - lows), (ticks, 1)).astype(np.float32),
    )


def test_the_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    assert learning_rate(0, CONFIG) == pytest.approx(1e-7)
    assert learning_rate(CONFIG.warmup_steps, CONFIG) == pytest.approx(CONFIG.learning_rate)
    assert learning_rate(CONFIG.steps, CONFIG) == pytest.approx(CONFIG.learning_rate / 10)


def test_a_label_is_a_distribution_around_its_target() -> None:
    labels = label_distribution(torch.tensor([0.5, 500.2, 1023.9]), std_bins=4.0)
    torch.testing.assert_close(labels.sum(-1), torch.ones(3))
    assert labels.argmax(-1).tolist() == [0, 500, 1023]
    assert labels[1, 504] > labels[1, 510] > labels[1, 560]


def test_a_frame_opens_with_the_last_action_token_and_holds_the_action_taken(
    spec: PolicySpec,
) -> None:
    one = episode(spec, ticks=3)
    frames = tokenize([one, one], spec)
    done = Tokenizer(spec).encode_action(one.actions)
    assert frames.starts.tolist() == [0, 3, 6]
    assert frames.ids.shape[1] == spec.frame_tokens - spec.image_tokens
    assert (
        frames.ids[0, 0] == frames.ids[3, 0] == SEPARATOR_ID
    )  # Nothing was done before an episode's first tick.
    np.testing.assert_array_equal(frames.ids[1:3, 0], done[:-1, -1])
    np.testing.assert_array_equal(frames.ids[:3, -(spec.action_tokens - 1) :], done[:, :-1])


def test_targets_are_the_experts_actions(spec: PolicySpec) -> None:
    frames = tokenize([episode(spec, ticks=3)], spec)
    np.testing.assert_allclose(frames.targets, 0.3 * 1024, rtol=1e-4)


def test_windows_never_span_two_episodes(spec: PolicySpec) -> None:
    frames = join(
        [tokenize([episode(spec, 5)], spec), tokenize([episode(spec, 3), episode(spec, 4)], spec)]
    )
    assert frames.starts.tolist() == [0, 5, 8, 12]
    assert frames.windows(4).tolist() == [0, 1, 8]


def corrected(spec: PolicySpec, ticks: int, theirs: range, seed: int = 0) -> Episode:
    """Return an episode in which a person had the arm for a while."""
    labelled = np.isin(np.arange(ticks), theirs)
    return replace(episode(spec, ticks, seed), labelled=labelled)


def test_a_window_without_a_labelled_tick_is_left_out(spec: PolicySpec) -> None:
    frames = join(
        [
            tokenize([episode(spec, 5)], spec),
            tokenize([corrected(spec, 10, range(6, 7)), corrected(spec, 6, range(0))], spec),
        ]
    )
    assert frames.labelled.sum() == 5 + 1
    # Frame 6 of the second episode is frame 11 of all.
    assert frames.windows(4).tolist() == [0, 1, 8, 9, 10, 11]


def test_only_labelled_ticks_teach(spec: PolicySpec, tmp_path: Path) -> None:
    weights = []
    for name, share in (("one", 0.1), ("other", 0.9)):
        low, high = spec.actuators[0].low, spec.actuators[0].high
        unlike = np.full((20, len(spec.actuators)), low + share * (high - low), np.float32)
        taught = corrected(spec, 20, range(8, 14))
        labels = np.where(taught.labelled[:, None], taught.expert_actions, unlike)
        frames = tokenize([replace(taught, expert_actions=labels)], spec)
        trainer = Trainer(spec, preset("tiny"), CONFIG, tmp_path / name)
        trainer.fit(frames, until_step=3)
        weights.append(torch.cat([each.flatten() for each in trainer.model.parameters()]))
    assert torch.equal(*weights)


@pytest.fixture
def seeing_spec(spec: PolicySpec) -> PolicySpec:
    """The tests' specification with two pictures of different sizes."""
    pictures = tuple(
        ObservationKey(name=name, shape=shape, dtype="uint8", unit="1", encoding="image")
        for name, shape in (("camera/front", (32, 16, 3)), ("camera/wrist", (16, 16, 3)))
    )
    keys = (*pictures, *spec.observations)
    return PolicySpec(**{**spec.model_dump(exclude={"observations"}), "observations": keys})


def seeing_episode(spec: PolicySpec, ticks: int) -> Episode:
    """Return an episode whose first picture and whose bodies show the expert's action."""
    rng = np.random.default_rng(3)
    plain = episode(spec, ticks)
    shares = rng.uniform(0.1, 0.9, ticks)
    lows = np.array([actuator.low for actuator in spec.actuators])
    highs = np.array([actuator.high for actuator in spec.actuators])
    pictures = [
        np.broadcast_to((255 * shares).astype(np.uint8)[:, None, None, None], (ticks, *key.shape))
        for key in spec.observations[:2]
    ]
    return Episode(
        seed=0,
        succeeded=True,
        observations=(*(picture.copy() for picture in pictures), *plain.observations[2:]),
        actions=plain.actions,
        expert_actions=(lows + shares[:, None] * (highs - lows)).astype(np.float32),
        places=np.tile((0.4 * shares - 0.2)[:, None, None], (1, 2, 3)).astype(np.float32),
    )


def test_pictures_stay_bytes_until_a_batch_is_cut(seeing_spec: PolicySpec) -> None:
    one = seeing_episode(seeing_spec, ticks=5)
    frames = join([tokenize([one], seeing_spec), tokenize([one, one], seeing_spec)])
    assert [picture.dtype for picture in frames.pictures] == [np.uint8, np.uint8]
    np.testing.assert_array_equal(frames.pictures[0][5:10], one.observations[0])
    np.testing.assert_array_equal(frames.places[10:], one.places)


@pytest.mark.parametrize(
    ("locate", "share_left"),
    [(0.0, 0.9), (100.0, 0.5)],  # A weight of 100 makes the places nearly all of the loss.
)
def test_training_learns_from_pictures_to_act_and_to_localise(
    seeing_spec: PolicySpec, tmp_path: Path, locate: float, share_left: float
) -> None:
    frames = tokenize([seeing_episode(seeing_spec, ticks=60)], seeing_spec)
    config = CONFIG.model_copy(update={"locate": locate, "steps": 80, "label_std_bins": 60.0})
    trainer = Trainer(seeing_spec, preset("tiny"), config, tmp_path, bodies=2)
    batch = Batch.of(frames, np.arange(0, 56, 4), 4)

    before = trainer._loss(batch, np.random.default_rng(0)).item()
    trainer.fit(frames, until_step=config.steps)
    assert trainer._loss(batch, np.random.default_rng(0)).item() < share_left * before


def test_places_that_are_unknown_are_refused_where_they_are_to_be_learned(
    spec: PolicySpec, tmp_path: Path
) -> None:
    frames = tokenize([episode(spec, ticks=8)], spec)
    config = CONFIG.model_copy(update={"locate": 1.0})
    with pytest.raises(DemonstrationError, match="places of their bodies"):
        Trainer(spec, preset("tiny"), config, tmp_path, bodies=2).fit(frames, until_step=1)


def test_every_input_of_a_step_moves_to_the_device(seeing_spec: PolicySpec, tmp_path: Path) -> None:
    """A tensor left on the CPU raises: PyTorch never mixes the meta device with another."""
    frames = tokenize([seeing_episode(seeing_spec, ticks=8)], seeing_spec)
    config = CONFIG.model_copy(update={"locate": 1.0, "shift_px": 1, "colour_gain": 0.1})
    trainer = Trainer(
        seeing_spec, preset("tiny"), config, tmp_path, bodies=2, device=torch.device("meta")
    )
    batch = Batch.of(frames, np.array([0, 2]), 4)
    loss = trainer._loss(batch, np.random.default_rng(0))
    loss.backward()
    assert loss.device.type == "meta"


def test_a_policy_lies_on_the_cpu_wherever_it_was_trained(spec: PolicySpec, tmp_path: Path) -> None:
    """The exporter would mix devices. Weights on the meta device cannot be copied, which shows that
    the copy is made."""
    trained = Trainer(spec, preset("tiny"), CONFIG, tmp_path).policy()
    assert {parameter.device.type for parameter in trained.parameters()} == {"cpu"}
    elsewhere = Trainer(spec, preset("tiny"), CONFIG, tmp_path, device=torch.device("meta"))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta"):
        elsewhere.policy()


def test_training_learns_the_experts_action_and_not_the_action_taken(
    spec: PolicySpec, tmp_path: Path
) -> None:
    frames = tokenize([episode(spec, ticks=40)], spec)
    trainer = Trainer(spec, preset("tiny"), CONFIG, tmp_path)
    before = trainer.validation_loss(frames)
    trainer.fit(frames, until_step=CONFIG.steps)
    assert trainer.validation_loss(frames) < 0.7 * before


def test_a_run_that_was_stopped_continues_with_the_same_weights(
    spec: PolicySpec, tmp_path: Path
) -> None:
    frames = tokenize([episode(spec, ticks=40)], spec)
    whole = Trainer(spec, preset("tiny"), CONFIG, tmp_path / "whole")
    whole.fit(frames, until_step=6)
    whole.fit(frames, until_step=12)
    Trainer(spec, preset("tiny"), CONFIG, tmp_path / "cut").fit(frames, until_step=6)
    resumed = Trainer(spec, preset("tiny"), CONFIG, tmp_path / "cut")
    assert resumed.step == 6
    resumed.fit(frames, until_step=12)
    for (name, mine), theirs in zip(
        resumed.model.named_parameters(), whole.model.parameters(), strict=True
    ):
        torch.testing.assert_close(mine, theirs, msg=name)


class Interrupted(Trainer):
    """A trainer that Ctrl-C stops amid its third step."""

    def _learn(self, batch: Batch, rng: np.random.Generator) -> float:
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)
        return super()._learn(batch, rng)


def test_ctrl_c_amid_a_step_keeps_all_steps_and_this_one(spec: PolicySpec, tmp_path: Path) -> None:
    frames = tokenize([episode(spec, ticks=40)], spec)
    with pytest.raises(KeyboardInterrupt):
        Interrupted(spec, preset("tiny"), CONFIG, tmp_path).fit(frames, until_step=12)
    assert Trainer(spec, preset("tiny"), CONFIG, tmp_path).step == 3


def test_a_checkpoint_of_another_model_is_refused(spec: PolicySpec, tmp_path: Path) -> None:
    Trainer(spec, preset("tiny"), CONFIG, tmp_path).save()
    with pytest.raises(ConfigError, match="other dimensions"):
        Trainer(spec, preset("stack"), CONFIG, tmp_path)


def test_hidden_actions_leave_the_observations_in_place(spec: PolicySpec, tmp_path: Path) -> None:
    trainer = Trainer(
        spec, preset("tiny"), CONFIG.model_copy(update={"forget_actions": 1.0}), tmp_path
    )
    frames = tokenize([episode(spec, ticks=8)], spec)
    ids = frames.ids[None].copy()
    trainer._forget_actions(ids, np.random.default_rng(0))
    observed = slice(1, 1 + spec.observation_tokens - spec.image_tokens)
    np.testing.assert_array_equal(ids[0, :, observed], frames.ids[:, observed])
    assert (ids[..., 0] == SEPARATOR_ID).all()
    assert (ids[..., observed.stop :] == SEPARATOR_ID).all()


def test_hiding_the_only_actuators_past_leaves_the_observation(
    spec: PolicySpec, tmp_path: Path
) -> None:
    single = spec.model_copy(update={"actuators": spec.actuators[:1]})
    trainer = Trainer(
        single, preset("tiny"), CONFIG.model_copy(update={"forget_actions": 1.0}), tmp_path
    )
    frames = tokenize([episode(single, ticks=8)], single)
    ids = frames.ids[None].copy()
    trainer._forget_actions(ids, np.random.default_rng(0))
    np.testing.assert_array_equal(ids[0, :, 1:], frames.ids[:, 1:])


def test_noise_moves_the_past_actions_alone_and_keeps_them_in_their_bins(
    spec: PolicySpec, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"action_noise_bins": 500.0})
    trainer = Trainer(spec, preset("tiny"), config, tmp_path)
    frames = tokenize([episode(spec, ticks=8)], spec)
    ids = frames.ids[None].copy()
    trainer._disturb_actions(ids, np.random.default_rng(0))
    observed = slice(1, 1 + spec.observation_tokens - spec.image_tokens)
    np.testing.assert_array_equal(ids[0, :, observed], frames.ids[:, observed])
    assert ids[0, 0, 0] == SEPARATOR_ID
    moved = np.concatenate([ids[0, 1:, 0], ids[0, :, observed.stop + 1 :].ravel()])
    assert (moved >= FIRST_CONTINUOUS_ID).all()
    assert (moved < FIRST_CONTINUOUS_ID + CONTINUOUS_BINS).all()
    assert np.ptp(moved) > 500


def test_a_pair_reads_the_same_sequence_as_it_is_and_disturbed(
    spec: PolicySpec, tmp_path: Path
) -> None:
    update = {"consistency": 1.0, "action_noise_bins": 300.0, "batch_sequences": 4}
    trainer = Trainer(spec, preset("tiny"), CONFIG.model_copy(update=update), tmp_path)
    frames = tokenize([episode(spec, ticks=9)], spec)
    windows = frames.windows(CONFIG.sequence_frames)
    batch = next(trainer._batches(frames, windows, 1, np.random.default_rng(0)))
    calm, disturbed = np.split(batch.ids, 2)
    observed = slice(1, 1 + spec.observation_tokens - spec.image_tokens)
    np.testing.assert_array_equal(*np.split(batch.targets, 2))
    np.testing.assert_array_equal(calm[..., observed], disturbed[..., observed])
    assert (calm[..., observed.stop :] != disturbed[..., observed.stop :]).any()
    assert all(each.tolist() in frames.ids.tolist() for each in calm.reshape(-1, calm.shape[-1]))


def test_a_batch_without_room_for_a_pair_is_refused(spec: PolicySpec, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"consistency": 1.0, "batch_sequences": 1})
    with pytest.raises(ConfigError, match=r"batch_sequences: expected at least 2 .* found 1"):
        Trainer(spec, preset("tiny"), config, tmp_path)


def test_consistency_teaches_an_answer_that_past_actions_change_less(
    spec: PolicySpec, tmp_path: Path
) -> None:
    change = []
    for weight in (0.0, 30.0):
        update = {"consistency": weight, "action_noise_bins": 300.0, "batch_sequences": 8}
        trainer = Trainer(
            spec, preset("tiny"), CONFIG.model_copy(update=update), tmp_path / f"{weight}"
        )
        frames = tokenize([episode(spec, ticks=12)], spec)
        trainer.fit(frames, 30)
        change.append(answer_change(trainer, frames))
    assert change[1] < 0.5 * change[0]


def answer_change(trainer: Trainer, frames: Frames) -> float:
    """Return how far the mean bin moves when other past actions stand in the frame."""
    policy, spec = trainer.policy(), trainer.spec
    length = CONFIG.sequence_frames
    ids = frames.ids[:length][None].copy()
    other = ids.copy()
    trainer._disturb_actions(other, np.random.default_rng(1))
    positions = np.arange(length * spec.frame_tokens)
    cos, sin = rotary_tables(positions.astype(np.float64), policy.dims.head_size)
    common = (
        None,
        torch.from_numpy(positions % spec.frame_tokens),
        torch.from_numpy(cos),
        torch.from_numpy(sin),
        banded_mask(length, spec.frame_tokens, spec.window_frames),
        action_positions(length, spec),
    )
    with torch.no_grad():
        tokens = (torch.from_numpy(each).flatten(1) for each in (ids, other))
        means = [
            policy.head(policy(each, *common)).softmax(-1) @ torch.arange(1024.0) for each in tokens
        ]
    return float((means[0] - means[1]).abs().mean())


def test_a_checkpoint_that_learned_other_ranges_is_refused(
    spec: PolicySpec, tmp_path: Path
) -> None:
    Trainer(spec, preset("tiny"), CONFIG, tmp_path).save()
    slower = spec.model_copy(update={"action_delay_ms": spec.action_delay_ms + 5})
    with pytest.raises(ConfigError, match="another specification"):
        Trainer(slower, preset("tiny"), CONFIG, tmp_path)


def test_a_sequence_shorter_than_the_window_is_refused(spec: PolicySpec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least the window"):
        Trainer(spec, preset("tiny"), CONFIG.model_copy(update={"sequence_frames": 1}), tmp_path)


def test_episodes_shorter_than_a_sequence_are_refused(spec: PolicySpec, tmp_path: Path) -> None:
    trainer = Trainer(spec, preset("tiny"), CONFIG, tmp_path)
    empty: Frames = tokenize([episode(spec, ticks=2)], spec)
    with pytest.raises(DemonstrationError, match="at least 4 ticks"):
        trainer.fit(empty, until_step=1)


def test_a_loss_that_is_not_finite_ends_the_training_and_the_last_checkpoint_stays(
    spec: PolicySpec, tmp_path: Path
) -> None:
    trainer = Trainer(spec, preset("tiny"), CONFIG, tmp_path)
    frames = tokenize([episode(spec, ticks=12)], spec)
    trainer.fit(frames, until_step=2)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingError, match="step 2: expected a finite loss"):
        trainer.fit(frames, until_step=4)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


def test_a_checkpoint_that_learned_from_other_demonstrations_is_refused(
    spec: PolicySpec, tmp_path: Path
) -> None:
    Trainer(spec, preset("tiny"), CONFIG, tmp_path, origin=["2 episodes", "3 episodes"]).save()
    for origin in (["2 episodes"], ["2 episodes", "4 episodes"]):
        with pytest.raises(ConfigError, match="expected to go on with 3 episodes; found"):
            Trainer(spec, preset("tiny"), CONFIG, tmp_path, origin=origin)


@pytest.mark.parametrize("length", [0, 100])
def test_a_checkpoint_that_was_cut_short_is_refused_by_its_name(
    spec: PolicySpec, tmp_path: Path, length: int
) -> None:
    Trainer(spec, preset("tiny"), CONFIG, tmp_path).save()
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:length])
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors: expected a whole checkpoint"):
        Trainer(spec, preset("tiny"), CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "found"),
    [
        ("model.norm.weight", torch.tensor(float("nan")), "model.norm.weight: expected finite"),
        ("exp_avg.model.norm.weight", None, "found a difference in .*exp_avg.model.norm.weight"),
        ("step", torch.tensor(-1), "step: expected finite numbers, found others"),
        ("step", torch.tensor(0.5), "step: expected int64 .*, found float32"),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_from_is_refused_by_the_tensors_name(
    spec: PolicySpec, tmp_path: Path, name: str, tensor: torch.Tensor | None, found: str
) -> None:
    trainer = Trainer(spec, preset("tiny"), CONFIG, tmp_path)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.save()
    checkpoint = tmp_path / "checkpoint.safetensors"
    Trainer(spec, preset("tiny"), CONFIG, tmp_path)  # As it is, it can be gone on from.
    with safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(checkpoint)
    before = tensors.pop(name)
    if tensor is not None:
        tensors[name] = tensor if before.ndim == 0 else tensor.expand(before.shape).contiguous()
    save_file(tensors, checkpoint, metadata)
    with pytest.raises(ConfigError, match=found):
        Trainer(spec, preset("tiny"), CONFIG, tmp_path)
