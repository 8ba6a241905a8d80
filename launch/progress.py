"""Progress bars around the pipelines of the simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

from gatort.datasets.writing import Converted, Watch
from gatort.policies.loading import BundleLoader, EngineName, PolicyOptions
from gatort.runtime.demonstrations import DemonstrationManifest, episode_files
from gatort.runtime.episode import Episode
from gatort.runtime.wording import counted
from gatort.sim.collect import (
    Collection,
    CollectionProgress,
    PolicySource,
    collect,
    policy_episodes,
)
from gatort.sim.portable import Workers
from gatort.sim.trials.journal import Journal, Trial
from gatort.sim.trials.runner import TrialSetup, run_trials

from .report import progress_bar, screen
from .streams import complain


class TrialsInterrupted(KeyboardInterrupt):
    """An interrupt of trials, with those that are finished."""

    def __init__(self, finished: Sequence[Trial]) -> None:
        super().__init__()
        self.finished = finished


def policy_source(bundle: Path, engine: EngineName = "onnx") -> PolicySource:
    """Return a bundle's policy on one thread, for workers that share the cores."""
    options = PolicyOptions(bundle=bundle, engine=engine, threads=1)
    return PolicySource(bundle=bundle, load=BundleLoader(options=options))


def show_convert(convert: Callable[[Watch], Converted], json: Path | None = None) -> Converted:
    """Convert under a bar of episodes, and print the result. See `gatort.datasets.conversion`."""
    bars = progress_bar("episodes")
    bar = bars.add_task("", total=None)
    with ExitStack() as stack:

        def show(done: int) -> None:
            if done == 1:  # The source is accepted, so no error cuts the bar short.
                stack.enter_context(bars)
            bars.update(bar, completed=done)

        converted = convert(show)
    screen(json).print(converted.sentence, converted.next_step, sep="\n", soft_wrap=True)
    return converted


def show_collect(collection: Collection, workers: Workers) -> DemonstrationManifest:
    """Collect episodes under a progress bar. See `gatort.sim.collect.collect`."""
    bars = progress_bar("episodes")
    bar = bars.add_task("", total=None)

    with ExitStack() as stack:

        def show(progress: CollectionProgress) -> None:
            if not progress.made:  # The folder is accepted, so no error cuts the bar short.
                stack.enter_context(bars)
            text = f"{progress.succeeded} of {progress.made} succeeded" if progress.made else ""
            bars.update(bar, total=progress.asked, completed=progress.made, description=text)

        try:
            return collect(collection, workers, show)
        except KeyboardInterrupt:
            stack.close()
            kept = len(episode_files(collection.directory))
            screen(stderr=True).print(
                f"stopped with {kept} of {counted(collection.episodes, 'episode')} in "
                f"{collection.directory}; the same command goes on from there",
                soft_wrap=True,
            )
            raise


def show_trials(
    setup: TrialSetup, seeds: Sequence[int], workers: Workers, journal: Journal | None, noun: str
) -> list[Trial]:
    """Run trials under a progress bar and return them in the order of their seeds.

    See `gatort.sim.trials.runner.run_trials`.

    Raises:
        TrialsInterrupted: Ctrl-C. It has the trials that are finished.
        OutputError: another process runs trials for the same report.
    """
    finished: dict[int, Trial] = {}
    if journal is not None:
        kept = {trial.seed for trial in journal.read()} & set(seeds)
        if kept:
            screen(stderr=True).print(
                f"{counted(len(kept), 'trial')} of an earlier run, from {journal.path}",
                soft_wrap=True,
            )
    alone = nullcontext() if journal is None else journal.alone()
    try:
        with alone, progress_bar(noun) as bars:
            bar = bars.add_task("", total=len(seeds))
            for trial in run_trials(setup, seeds, workers, journal):
                finished[trial.seed] = trial
                succeeded = sum(1 for each in finished.values() if each.succeeded)
                text = f"{succeeded} of {len(finished)} succeeded"
                bars.update(bar, advance=1, description=text)
    except KeyboardInterrupt as error:
        screen(stderr=True).print(
            f"stopped with {len(finished)} of {counted(len(seeds), 'trial')} finished; "
            f"{_fate(journal) if finished else 'give the command again'}",
            soft_wrap=True,
        )
        raise TrialsInterrupted(list(finished.values())) from error
    if journal is not None and journal.failure is not None:
        complain(f"trials are not kept: {journal.failure}")
    return [finished[seed] for seed in seeds]


def _fate(journal: Journal | None) -> str:
    if journal is None:
        return "they are lost, because only --json FILE keeps them"
    if journal.failure is not None:
        return f"they are lost: {journal.failure}"
    return f"{journal.path} keeps them, and the same command continues"


def show_policy_episodes(bundle: Path, seeds: Sequence[int], noun: str) -> list[Episode]:
    """Let a bundle's policy drive trials under a progress bar.

    Raises:
        BundleError: the bundle is incomplete or changed.
        EngineError: ONNX Runtime cannot run it.
    """
    policy = policy_source(bundle).load()
    with progress_bar(noun) as bars:
        driven = policy_episodes(policy, seeds)
        return list(bars.track(driven, total=len(seeds), description=""))
