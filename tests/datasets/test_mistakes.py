"""Mistakes that people make in a mapping are refused, each with its sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.datasets.conftest import moving_episode, write_demonstrations

from gatort.datasets.conversion import Converted, to_demonstrations, to_lerobot
from gatort.datasets.lerobot_layout import OWN
from gatort.datasets.mapping import read_mapping
from gatort.runtime.episode import Episode
from gatort.runtime.errors import GatortError
from gatort.runtime.spec import PolicySpec

Change = Callable[[Episode], Episode]

GOOD = """
like = "demos"

[keys."camera/front"]
from = "observation.images.front"

[keys."camera/wrist"]
from = "observation.images.wrist"

[keys."arm/joint_position"]
from = "observation.state"
columns = [0, 1, 2]

[keys."arm/joint_velocity"]
from = "observation.state"
columns = [3, 4, 5]

[keys."gripper/width"]
from = "observation.state"
columns = [6]

[action]
from = "action"
"""
"""Mapping that fits the data set of `foreign`."""
SEVERAL = [moving_episode(seed) for seed in range(1, 6)]
POSITION = '[keys."arm/joint_position"]\nfrom = "observation.state"\n'
VELOCITY = '[keys."arm/joint_velocity"]\nfrom = "observation.state"\n'
WIDTH = '[keys."gripper/width"]\nfrom = "observation.state"\n'
FRONT = '[keys."camera/front"]\nfrom = "observation.images.front"\n'


class Foreign:
    """A data set that gatort wrote, changed, and without gatort's own record of it."""

    def __init__(self, folder: Path, spec: PolicySpec, own: Path) -> None:
        self.folder = folder
        self.spec = spec
        folder.joinpath("demos").symlink_to(own)

    def write(
        self,
        change: Change = lambda episode: episode,
        spec: PolicySpec | None = None,
        seeds: tuple[int, ...] = (21, 22),
    ) -> None:
        """Write episodes, changed."""
        episodes = [change(moving_episode(seed)) for seed in seeds]
        source = write_demonstrations(self.folder / "source", spec or self.spec, episodes)
        to_lerobot([source], self.folder / "lerobot")
        (self.folder / "lerobot" / OWN).unlink()

    def convert(self, mapping: str = GOOD) -> Converted:
        """Convert it with a mapping."""
        file = self.folder / "mapping.toml"
        file.write_text(mapping)
        return to_demonstrations(self.folder / "lerobot", self.folder / "back", read_mapping(file))

    def refusal(self, mapping: str = GOOD) -> str:
        """Return the sentence with which a mapping is refused."""
        with pytest.raises(GatortError) as refused:
            self.convert(mapping)
        assert not (self.folder / "back").exists()
        return str(refused.value)


@pytest.fixture
def foreign(tmp_path: Path, arm_spec: PolicySpec, shown: Path) -> Foreign:
    return Foreign(tmp_path, arm_spec, shown)


def changed(
    *,
    position: Callable[[np.ndarray], np.ndarray] | None = None,
    velocity: Callable[[np.ndarray], np.ndarray] | None = None,
    width: Callable[[np.ndarray], np.ndarray] | None = None,
    pictures: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
    action: Callable[[np.ndarray], np.ndarray] | None = None,
    stamps: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Change:
    """Return a change of some arrays of an episode."""

    def change(episode: Episode) -> Episode:
        front, wrist, place, speed, opening = episode.observations
        if pictures is not None:
            front, wrist = pictures(front, wrist)
        actions = episode.actions if action is None else action(episode.actions)
        return Episode(
            seed=episode.seed,
            succeeded=episode.succeeded,
            observations=(
                front,
                wrist,
                (place if position is None else position(place)).astype(np.float32),
                (speed if velocity is None else velocity(speed)).astype(np.float32),
                (opening if width is None else width(opening)).astype(np.float32),
            ),
            actions=actions.astype(np.float32),
            expert_actions=actions.astype(np.float32),
            stamps_ns=episode.stamps_ns if stamps is None else stamps(episode.stamps_ns),
        )

    return change


@pytest.fixture
def loose(arm_spec: PolicySpec) -> PolicySpec:
    """`arm_spec` with ranges so wide that gatort writes values in any unit."""
    keys = tuple(
        key.model_copy(update={"low": (-1e4,) * key.size, "high": (1e4,) * key.size})
        if key.low
        else key
        for key in arm_spec.observations
    )
    actuators = tuple(
        each.model_copy(update={"low": -1e4, "high": 1e4}) for each in arm_spec.actuators
    )
    return arm_spec.model_copy(update={"observations": keys, "actuators": actuators})


def test_a_mapping_that_fits_is_taken(foreign: Foreign) -> None:
    foreign.write()
    converted = foreign.convert()
    assert (converted.episodes, converted.ticks, converted.successes) == (2, 120, 1)
    back = Episode.load(foreign.folder / "back" / "21.npz", foreign.spec)
    np.testing.assert_array_equal(back.observations[2], moving_episode(21).observations[2])


# -- Units ---------------------------------------------------------------------------------------


def test_degrees_for_radians_are_refused_and_taken_once_they_are_stated(
    foreign: Foreign, loose: PolicySpec
) -> None:
    foreign.write(changed(position=np.degrees), loose)
    sentence = foreign.refusal()
    assert "arm/joint_position: expected rad within -2 to 2 in value 0, found -4" in sentence
    assert sentence.endswith('as if in degrees; state unit = "deg" in [keys."arm/joint_position"]')
    foreign.convert(GOOD.replace(POSITION, POSITION + 'unit = "deg"\n'))
    back = Episode.load(foreign.folder / "back" / "21.npz", foreign.spec)
    np.testing.assert_allclose(back.observations[2], moving_episode(21).observations[2], rtol=1e-6)


def test_degrees_a_second_are_seen_beside_the_positions(
    foreign: Foreign, loose: PolicySpec
) -> None:
    # 20 times slower, so that degrees a second stay within the range of radians a second.
    slow = changed(position=lambda rad: np.array([0, -2, 2.2]) + (rad - [0, -2, 2.2]) / 50,
                   velocity=lambda rad_s: np.degrees(rad_s / 50))  # fmt: skip
    foreign.write(slow, loose)
    sentence = foreign.refusal()
    assert "arm/joint_velocity: expected rad/s, found 5" in sentence
    assert sentence.endswith(
        "times the change of arm/joint_position, as if in degrees per second; "
        'state unit = "deg/s" in [keys."arm/joint_velocity"]'
    )


def test_degrees_in_the_action_are_refused(foreign: Foreign, loose: PolicySpec) -> None:
    degrees = changed(action=lambda values: values * np.array([*[57.29578] * 3, 1]))
    foreign.write(degrees, loose)
    sentence = foreign.refusal()
    assert "action: expected rad within -3 to 3.5 in value 0, found -4" in sentence
    assert sentence.endswith('state unit = ["deg", "deg", "deg", "m"] in [action]')


def test_a_unit_that_was_converted_before_is_refused(foreign: Foreign) -> None:
    foreign.write()
    sentence = foreign.refusal(GOOD.replace(WIDTH, WIDTH + 'unit = "mm"\n'))
    assert "gripper/width: expected mm as the mapping says, found values that span" in sentence
    assert "of the range in m already; leave unit out of" in sentence


def test_millimetres_for_metres_are_refused(foreign: Foreign, loose: PolicySpec) -> None:
    foreign.write(changed(width=lambda metres: metres * 1000), loose)
    assert 'as if in millimetres; state unit = "mm"' in foreign.refusal()


def test_a_normalised_gripper_is_refused_and_taken_with_a_scale(
    foreign: Foreign, loose: PolicySpec
) -> None:
    foreign.write(changed(width=lambda metres: metres / 0.08), loose)
    sentence = foreign.refusal()
    assert "gripper/width: expected m within 0 to 0.08, found 0." in sentence
    assert "state its unit, scale or columns" in sentence
    foreign.convert(GOOD.replace(WIDTH, WIDTH + "scale = 0.08\n"))


def test_a_normalised_action_is_refused(foreign: Foreign, loose: PolicySpec) -> None:
    foreign.write(changed(action=lambda values: np.clip(values, -1, 1)), loose)
    assert "found values cut off at −1 and 1, as if normalised; state scale" in foreign.refusal()


def test_an_unknown_unit_is_refused_with_the_valid_ones(foreign: Foreign) -> None:
    foreign.write()
    sentence = foreign.refusal(GOOD.replace(POSITION, POSITION + 'unit = "furlong"\n'))
    assert sentence == ("arm/joint_position: unit: expected one of rad, deg, turn, found 'furlong'")


def test_values_without_a_range_in_another_unit_are_refused_beside_demonstrations(
    foreign: Foreign, loose: PolicySpec, arm_spec: PolicySpec, shown: Path
) -> None:
    # A key in mu-law has no range.
    free = {"encoding": "mu_law", "low": (), "high": ()}
    keys = (*arm_spec.observations[:4], arm_spec.observations[4].model_copy(update=free))
    spec = arm_spec.model_copy(update={"observations": keys})
    (foreign.folder / "demos").unlink()
    write_demonstrations(foreign.folder / "demos", spec, SEVERAL)
    foreign.write(changed(width=lambda metres: metres * 1000), loose, (21, 22, 23, 24, 25))
    sentence = foreign.refusal()
    assert "gripper/width: expected m of the size of the demonstrations of `like`" in sentence
    assert "times as large; state unit (mm, cm) or scale in" in sentence


# -- Order ---------------------------------------------------------------------------------------


def test_joints_in_another_order_are_refused(foreign: Foreign, loose: PolicySpec) -> None:
    turned = changed(position=lambda rad: rad[:, ::-1], velocity=lambda rad: rad[:, ::-1])
    foreign.write(turned, loose)
    sentence = foreign.refusal()
    assert "arm/joint_position: expected rad within" in sentence
    assert "as if in another order; state columns = [2, 1, 0] in" in sentence


def test_joints_in_an_order_that_the_ranges_allow_are_refused_beside_demonstrations(
    foreign: Foreign, loose: PolicySpec
) -> None:
    (foreign.folder / "demos").unlink()
    write_demonstrations(foreign.folder / "demos", loose, SEVERAL)
    exchanged = [1, 0, 2]
    foreign.write(
        changed(position=lambda rad: rad[:, exchanged], velocity=lambda rad: rad[:, exchanged]),
        loose,
        (21, 22, 23, 24, 25),
    )
    sentence = foreign.refusal()
    assert "arm/joint_position: expected values like those of the demonstrations" in sentence
    assert "found some that fit in another order; state columns = [1, 0, 2]" in sentence


def test_an_action_in_another_order_is_refused_beside_demonstrations_unless_it_is_trusted(
    foreign: Foreign, loose: PolicySpec
) -> None:
    (foreign.folder / "demos").unlink()
    write_demonstrations(foreign.folder / "demos", loose, SEVERAL)
    exchanged = changed(action=lambda values: values[:, [1, 0, 2, 3]])
    foreign.write(exchanged, loose, (21, 22, 23, 24, 25))
    sentence = foreign.refusal()
    assert "action: expected values like those of the demonstrations of `like`" in sentence
    assert "state columns = [1, 0, 2, 3] in [action]" in sentence
    foreign.convert(GOOD + "trust = true\n")


def test_speeds_in_another_order_than_the_positions_are_refused(foreign: Foreign) -> None:
    foreign.write(changed(velocity=lambda rad_s: rad_s[:, [1, 0, 2]]))
    assert (
        "arm/joint_velocity: expected the order of arm/joint_position, found that value 1 is the "
        "speed of value 0" in foreign.refusal()
    )


def test_values_that_the_data_set_names_in_another_order_are_refused(foreign: Foreign) -> None:
    foreign.write()
    info = foreign.folder / "lerobot" / "meta" / "info.json"
    text = info.read_text()
    info.write_text(text.replace("arm/joint0", "x").replace("arm/joint1", "arm/joint0")
                    .replace('"x"', '"arm/joint1"'))  # fmt: skip
    assert foreign.refusal().startswith(
        "action: expected the order arm/joint0, arm/joint1, arm/joint2, gripper/width, found "
        "arm/joint1, arm/joint0, arm/joint2, gripper/width in 'action'; "
        "state columns = [1, 0, 2, 3] in [action]"
    )


def test_swapped_positions_and_speeds_are_refused(foreign: Foreign) -> None:
    foreign.write()
    swapped = GOOD.replace("[0, 1, 2]", "[9]").replace("[3, 4, 5]", "[0, 1, 2]")
    sentence = foreign.refusal(swapped.replace("[9]", "[3, 4, 5]"))
    assert "arm/joint_position" in sentence
    assert "as if the two were swapped" in sentence


def test_swapped_cameras_are_refused_beside_demonstrations(foreign: Foreign) -> None:
    foreign.write(changed(pictures=lambda front, wrist: (wrist, front)))
    assert (
        "camera/front: expected values like those of the demonstrations of `like`, found some that "
        "fit camera/wrist, and the reverse, as if the two were swapped" in foreign.refusal()
    )


def test_bgr_is_refused_beside_demonstrations_and_taken_once_it_is_stated(foreign: Foreign) -> None:
    bgr = changed(pictures=lambda front, wrist: (front[..., ::-1], wrist))
    foreign.write(bgr)
    sentence = foreign.refusal()
    assert "camera/front: expected red, green and blue as in the demonstrations" in sentence
    assert sentence.endswith('state colour = "bgr" in [keys."camera/front"]')
    foreign.convert(GOOD.replace(FRONT, FRONT + 'colour = "bgr"\n'))
    back = Episode.load(foreign.folder / "back" / "21.npz", foreign.spec)
    np.testing.assert_array_equal(back.observations[0], moving_episode(21).observations[0])


# -- Rates ---------------------------------------------------------------------------------------


def test_another_rate_is_refused_and_every_third_tick_taken_where_it_is_stated(
    foreign: Foreign, arm_spec: PolicySpec
) -> None:
    fast = arm_spec.model_copy(update={"control_hz": 40})
    quick = changed(velocity=lambda rad_s: rad_s * 2,  # The same motion in half of the time.
                    stamps=lambda ns: ns[0] + (ns - ns[0]) // 2)  # fmt: skip
    foreign.write(quick, fast)
    sentence = foreign.refusal()
    assert sentence.endswith(
        "fps: expected 20, the policy's control_hz, found 40; "
        "state take_every = 2 to keep one tick in 2"
    )
    converted = foreign.convert("take_every = 2\n" + GOOD)
    assert converted.ticks == 60


def test_a_rate_that_no_tick_fits_is_refused(foreign: Foreign, arm_spec: PolicySpec) -> None:
    foreign.write(spec=arm_spec.model_copy(update={"control_hz": 30}))
    assert foreign.refusal().endswith(
        "fps: expected 20, the policy's control_hz, found 30; record at 20 Hz, or train a policy "
        "with another control_hz"
    )


def test_stamps_of_another_rate_are_refused(foreign: Foreign) -> None:
    foreign.write(changed(stamps=lambda ns: ns[0] + (ns - ns[0]) * 2 // 3))
    assert "stamp_ns: expected 50 ms from one tick to the next, found 33.3" in foreign.refusal()


def test_a_wrong_rate_in_the_description_is_seen_in_the_motion(foreign: Foreign) -> None:
    # Recorded at 30 Hz, described as 20 Hz: each tick moves two thirds of that which it says.
    foreign.write(changed(velocity=lambda rad_s: rad_s * 1.5, stamps=lambda ns: ns[:0]))
    sentence = foreign.refusal()
    assert "arm/joint_position: expected changes at 20 Hz that arm/joint_velocity agrees with" in (
        sentence
    )
    assert "found 0.66" in sentence
    assert "as if the ticks were about 30 a second" in sentence


# -- Keys ----------------------------------------------------------------------------------------


def test_a_key_that_the_mapping_lacks_is_named(foreign: Foreign) -> None:
    foreign.write()
    without = GOOD.replace(WIDTH + "columns = [6]\n", "")
    assert foreign.refusal(without) == (
        'gripper/width: expected a table [keys."gripper/width"], found none; every key of the '
        "specification needs one"
    )


def test_a_key_that_the_specification_lacks_is_named_with_the_closest_one(foreign: Foreign) -> None:
    foreign.write()
    sentence = foreign.refusal(GOOD.replace('"arm/joint_position"', '"arm/joint_positions"'))
    assert "found 'arm/joint_positions'; did you mean 'arm/joint_position'?" in sentence


def test_a_feature_that_the_data_set_lacks_is_named(foreign: Foreign) -> None:
    foreign.write()
    sentence = foreign.refusal(GOOD.replace("observation.images.front", "observation.images.fornt"))
    assert "camera/front: from: expected a feature of" in sentence
    assert "did you mean 'observation.images.front'?" in sentence


def test_a_wrong_number_of_values_is_refused(foreign: Foreign) -> None:
    foreign.write()
    assert foreign.refusal(GOOD.replace("columns = [0, 1, 2]\n", "")).startswith(
        "arm/joint_position: expected 3 values a tick, found 7 in 'observation.state'; "
        "name 3 of them with columns"
    )
    assert foreign.refusal(GOOD.replace("[0, 1, 2]", "[0, 1]")) == (
        "arm/joint_position: columns: expected 3 of them, found 2"
    )


def test_pictures_of_another_size_are_refused_and_taken_with_resize(
    foreign: Foreign, arm_spec: PolicySpec
) -> None:
    large = arm_spec.observations[0].model_copy(update={"shape": (64, 64, 3)})
    spec = arm_spec.model_copy(update={"observations": (large, *arm_spec.observations[1:])})
    foreign.write(
        changed(pictures=lambda front, wrist: (front.repeat(2, 1).repeat(2, 2), wrist)), spec
    )
    assert "expected pictures of shape (32, 32, 3), found (64, 64, 3)" in foreign.refusal()
    foreign.convert(GOOD.replace(FRONT, FRONT + "resize = true\n"))
    back = Episode.load(foreign.folder / "back" / "21.npz", foreign.spec)
    # The mean of four equal pixels, rounded once on the way.
    error = np.abs(back.observations[0].astype(int) - moving_episode(21).observations[0])
    assert error.max() <= 2


def test_trusted_values_are_taken(foreign: Foreign) -> None:
    foreign.write(changed(velocity=lambda rad_s: rad_s[:, [1, 0, 2]]))
    foreign.convert(GOOD.replace(VELOCITY, VELOCITY + "trust = true\n"))


def test_values_that_training_refuses_are_refused_although_they_are_trusted(
    foreign: Foreign, loose: PolicySpec
) -> None:
    foreign.write(changed(position=np.degrees), loose)
    sentence = foreign.refusal(GOOD.replace(POSITION, POSITION + "trust = true\n"))
    assert sentence.endswith("training refuses values that far outside, trusted or not")


def test_a_data_set_of_another_program_needs_a_mapping(foreign: Foreign) -> None:
    foreign.write()
    with pytest.raises(GatortError, match="expected a mapping, since gatort did not write"):
        to_demonstrations(foreign.folder / "lerobot", foreign.folder / "back")
