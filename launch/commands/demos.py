"""`gatort demos`: demonstrations by the scripted expert, made in parallel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field, FiniteFloat, PositiveInt

from gatort.datasets.conversion import from_recordings as convert_recordings
from gatort.launch.progress import show_collect, show_convert
from gatort.launch.refusals import refuse_ignored
from gatort.launch.report import screen
from gatort.launch.sharing import sharing
from gatort.runtime.episode import Episode
from gatort.runtime.errors import ConfigError
from gatort.runtime.exit_status import ExitStatus
from gatort.runtime.recording.corrections import write_corrections
from gatort.runtime.spec import MOST_SIDE, PATCH_PIXELS, PolicySpec
from gatort.runtime.wording import counted
from gatort.sim.collect import Collection, require_training_seeds
from gatort.sim.portable import ClusterAddress
from gatort.sim.randomisation import Randomisation
from gatort.sim.tasks import task_named
from gatort.sim.tasks.seeds import TRAINING_SEEDS
from gatort.sim.tasks.task import Task, with_pictures
from gatort.sim.view_randomisation import TRAINING_VIEW

DEFAULT_TASK = "stacking"
"""Task whose expert drives by default."""
PIXELS = 64
"""Height and width of a picture by default."""


def demos(
    out: Path,
    *,
    episodes: Annotated[int, Field(ge=1, le=len(TRAINING_SEEDS))] = 200,
    seed: Annotated[int, Field(ge=TRAINING_SEEDS.start, lt=TRAINING_SEEDS.stop)] | None = None,
    noise_nm: tuple[Annotated[FiniteFloat, Field(ge=0, le=1000)], ...] = (0.0, 1.0, 2.0, 4.0),
    randomise: bool = False,
    randomise_view: bool = False,
    task: str | None = None,
    cameras: Annotated[bool, Parameter(negative="")] = False,
    pixels: Annotated[int, Field(ge=PATCH_PIXELS, le=MOST_SIDE)] | None = None,
    workers: PositiveInt | None = None,
    cluster: ClusterAddress | None = None,
    from_recordings: list[Path] | None = None,
    corrections: Annotated[tuple[Path, ...], Parameter(consume_multiple=True)] = (),
) -> int:
    """Let a task's scripted expert drive, and store its observations and actions as episodes.

    The same command continues after an interruption, and adds episodes when --episodes is larger.

    Parameters
    ----------
    out
        Folder for the episodes and their manifest.
    episodes
        Number of episodes.
    seed
        Layout seed of the first episode; the others follow one by one. Default: the first
        training seed.
    noise_nm
        Standard deviations of the torque noise, in N·m; each episode draws one of them. The noise
        makes the expert show how it recovers.
    randomise
        Vary arm, blocks, delay and sensors from episode to episode, over the ranges in
        sim/randomisation.py.
    randomise_view
        Vary the pictures from episode to episode, over the ranges in sim/view_randomisation.py.
    task
        Name of the task; stacking by default, and none for recordings. The episodes have the
        observation keys of its first interface.
    cameras
        Observe the task's cameras instead: the keys of its first interface that has some.
    pixels
        Height and width of a picture, a multiple of 16; 64 by default.
    workers
        Number of processes that share the episodes. Default: one per core.
    cluster
        Address of a Ray cluster whose machines share the episodes instead, such as
        ray://10.0.0.1:10001.
    from_recordings
        Recordings (.mcap) of `gatort run` that become the episodes; nothing is simulated.
    corrections
        Recordings of `gatort run --takeover` to make the episodes of, instead of the expert's. A
        policy then learns the ticks of the person. Recordings without any are left out.
    """
    simulated = {
        "seed": seed,
        "randomise": randomise,
        "randomise_view": randomise_view,
        "cameras": cameras,
        "pixels": pixels,
        "workers": workers,
        "cluster": cluster,
    }
    if from_recordings is not None:
        others = corrections or None
        refuse_ignored("with --from-recordings", **simulated, corrections=others)
        show_convert(partial(convert_recordings, from_recordings, out, task))
        return ExitStatus.DONE
    if corrections:
        refuse_ignored("with --corrections", **simulated)
        return _write_corrections(corrections, out, task or DEFAULT_TASK)
    if not cameras:
        refuse_ignored("without --cameras", randomise_view=randomise_view)
    first = TRAINING_SEEDS.start if seed is None else seed
    require_training_seeds(range(first, first + episodes))
    known = task_named(task or DEFAULT_TASK)
    collection = Collection(
        task=known.name,
        spec=_interface(known, cameras, pixels),
        directory=out,
        first_seed=first,
        episodes=episodes,
        noise_nm=noise_nm,
        randomisation=Randomisation() if randomise else None,
        view_randomisation=TRAINING_VIEW if randomise_view else None,
    )

    manifest = show_collect(collection, sharing(workers, cluster))
    screen().print(
        f"{counted(manifest.episodes, 'episode')}, {manifest.successes} succeeded, "
        f"{counted(manifest.ticks, 'tick')}, "
        f"seeds {manifest.first_seed} to {manifest.last_seed} in {out}",
        f"train on them: gatort train {quote(str(out))} --out runs/NAME",
        sep="\n",
        soft_wrap=True,
    )
    return ExitStatus.DONE


def _write_corrections(files: tuple[Path, ...], out: Path, task: str) -> int:
    """Make episodes of runs in which a person took over, and print their counts."""
    manifest = write_corrections(files, out, task_named(task).name, _show_left_out)
    screen().print(
        f"{counted(manifest.episodes, 'episode')}, {manifest.successes} succeeded, "
        f"{counted(manifest.ticks, 'tick')}, {manifest.driver}; train on them with the "
        f"policy's demonstrations: gatort train DEMOS {quote(str(out))} --start BUNDLE --rounds 0",
        soft_wrap=True,
    )
    return ExitStatus.DONE


def _show_left_out(file: Path, episode: Episode | None) -> None:
    if episode is None:
        screen(stderr=True).print(f"{file}: left out, because no person had the arm in it")


def _interface(task: Task, cameras: bool, pixels: int | None) -> PolicySpec:
    """Return the observation keys of the episodes.

    Raises:
        ConfigError: the task has no cameras, or a picture cannot be cut into patches.
    """
    if not cameras:
        if pixels is not None:
            raise ConfigError("--pixels: expected --cameras with it, found none")
        return task.interface
    pixels = pixels or PIXELS
    if pixels % PATCH_PIXELS:
        raise ConfigError(f"--pixels: expected a multiple of {PATCH_PIXELS}, found {pixels}")
    seeing = task.interface_with_cameras
    if seeing is None:
        raise ConfigError(f"--cameras: task {task.name!r} has no interface with cameras")
    return with_pictures(seeing, {key.name: (pixels, pixels, 3) for key in seeing.observations})
