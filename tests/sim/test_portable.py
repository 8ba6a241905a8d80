"""Work in plain text is the same work on another machine, or is refused there with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatort.policies.loading import SHIPPED_BUNDLE, BundleLoader, PolicyOptions
from gatort.runtime.bundle import MANIFEST_FILE, sha256_of
from gatort.runtime.errors import DemonstrationError
from gatort.runtime.remote.link import LinkConditions
from gatort.sim.cluster_node import Order, refusal, work_on
from gatort.sim.collect import Collection
from gatort.sim.portable import Parcel
from gatort.sim.randomisation import Randomisation
from gatort.sim.tasks import task_named
from gatort.sim.trials.journal import Trial
from gatort.sim.trials.runner import TrialSetup, run_trials


def setup_of(bundle: Path, manifest_sha256: str | None = None) -> TrialSetup:
    options = PolicyOptions(bundle=bundle, threads=1, temperature=0.5)
    loader = BundleLoader(options=options, manifest_sha256=manifest_sha256)
    return TrialSetup(load_policy=loader, link=LinkConditions(delay_ms=3.0), seconds=0.2)


def collection_in(folder: Path) -> Collection:
    return Collection(
        task="reach",
        spec=task_named("reach").interface,
        directory=folder,
        first_seed=1_000_000,
        episodes=1,
        noise_nm=(1.0,),
        randomisation=Randomisation(),
        seconds=1.0,
    )


def outcome(trial: Trial) -> dict[str, object]:
    return trial.model_dump(exclude={"policy_us"})


def test_trials_and_demonstrations_are_the_same_after_their_way_as_text(tmp_path: Path) -> None:
    for work in (setup_of(SHIPPED_BUNDLE), collection_in(tmp_path)):
        assert Parcel.of(work).unpack() == work


def test_a_shipped_bundle_travels_by_its_name_and_another_one_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = Parcel.of(BundleLoader(options=PolicyOptions(bundle=SHIPPED_BUNDLE))).text
    assert '"bundle":"stack"' in text
    text = Parcel.of(BundleLoader(options=PolicyOptions(bundle=Path("mine")))).text
    assert f'"bundle":"{tmp_path}/mine"' in text


def test_a_trial_of_another_machine_is_the_one_of_this() -> None:
    setup = setup_of(SHIPPED_BUNDLE, sha256_of(SHIPPED_BUNDLE / MANIFEST_FILE))
    content = work_on(Order.of(setup).model_dump_json(), 40)
    assert isinstance(content, bytes)
    [here] = run_trials(setup, [40])
    assert outcome(setup.receive(40, content)) == outcome(here)


def test_an_episode_of_another_machine_lies_in_the_folder_and_a_damaged_one_does_not(
    tmp_path: Path,
) -> None:
    far, here = collection_in(tmp_path / "far"), collection_in(tmp_path / "here")
    seed = far.first_seed
    for each in (far, here):
        each.directory.mkdir()
    content = far.prepare_far()(seed)
    with pytest.raises(DemonstrationError):
        far.receive(seed, content[: len(content) // 2])
    assert list(far.directory.iterdir()) == []

    assert far.receive(seed, content) == here.prepare()(seed)
    name = f"{seed}.npz"
    assert (far.directory / name).read_bytes() == (here.directory / name).read_bytes()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"code_sha256": "0"}, "expected gatort's code as on the machine that asks, found another"),
        ({"versions": {"numpy": "1.0"}}, "expected numpy 1.0 as on the machine that asks, found 2"),
    ],
)
def test_a_machine_with_other_code_or_packages_is_refused(
    changed: dict[str, object], sentence: str
) -> None:
    order = Order.of(setup_of(SHIPPED_BUNDLE)).model_copy(update=changed).model_dump_json()
    refused = refusal(order)
    assert refused is not None
    assert refused.startswith("machine ")
    assert sentence in refused
    assert work_on(order, 40) == refused


def test_packages_that_a_machine_lacks_are_no_reason_to_refuse_it() -> None:
    order = Order.of(setup_of(SHIPPED_BUNDLE))
    more = order.model_copy(update={"versions": {**order.versions, "another": "1.0"}})
    assert refusal(more.model_dump_json()) is None


@pytest.mark.parametrize(
    ("bundle", "sha256", "sentence"),
    [
        (Path("/nowhere/mine"), None, "/nowhere/mine"),
        (SHIPPED_BUNDLE, "0" * 64, "manifest"),
    ],
)
def test_a_machine_without_the_bundle_or_with_another_one_is_refused(
    bundle: Path, sha256: str | None, sentence: str
) -> None:
    refused = refusal(Order.of(setup_of(bundle, sha256)).model_dump_json())
    assert refused is not None
    assert sentence in refused
