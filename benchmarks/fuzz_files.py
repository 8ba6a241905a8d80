"""Mutated files of every format that strangers hand over, through the readers that gatort uses.

Each input is a good file with flipped bytes, cuts, repeats, exchanged numbers or wild lengths. A
reader may return or raise a `GatortError`. Any other exception is a finding. So is a call that
takes more than 1 s of processor time or 256 MB of memory.

    python benchmarks/fuzz_files.py --inputs 20000 --seed 0 --json fuzz.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import zstandard
from mcap.data_stream import RecordBuilder
from mcap.records import Chunk, Header, Metadata, Schema
from mcap.stream_reader import StreamReader
from rich.progress import track

from gatort.launch.options import RunOptions, resolve
from gatort.policies.loading import SHIPPED_BUNDLE
from gatort.policies.presets import preset
from gatort.policies.recipe import TrainConfig
from gatort.policies.train import CHECKPOINT, Trainer
from gatort.runtime.bundle import MANIFEST_FILE, load_manifest
from gatort.runtime.clock import VirtualClock
from gatort.runtime.engines.engine import ScriptedEngine
from gatort.runtime.engines.native_weights import NativeModel
from gatort.runtime.episode import Episode
from gatort.runtime.errors import GatortError
from gatort.runtime.policy import Policy
from gatort.runtime.recording.messages import RunRecord
from gatort.runtime.recording.reader import Recording
from gatort.runtime.recording.recorder import Recorder
from gatort.runtime.recording.replay import Comparison
from gatort.runtime.recording.summary import summarise
from gatort.runtime.recording.tick_recorder import TickRecorder
from gatort.runtime.regular_file import open_regular
from gatort.runtime.robots.scripted import ScriptedRobot
from gatort.runtime.spec import FIRST_CONTINUOUS_ID, Actuator, ModelDims, ObservationKey, PolicySpec

MAGIC = b"\x89MCAP0\r\n"
MOST_CPU_S = 1.0
MOST_MB = 256.0
LARGEST_BYTES = 1 << 20

Mutate = Callable[[bytes, np.random.Generator], bytes]

SPEC = PolicySpec(
    observations=(
        ObservationKey(
            name="arm/position", shape=(3,), dtype="float32", unit="rad", encoding="mu_law"
        ),
    ),
    actuators=tuple(
        Actuator(name=f"joint_{index}", unit="N·m", low=-30, high=30, safe=0) for index in range(3)
    ),
    control_hz=20,
    action_delay_ms=25,
    window_frames=3,
)
DIMS = ModelDims(
    layers=1,
    heads=1,
    head_size=16,
    width=16,
    ff_half_width=16,
    first_token_id=FIRST_CONTINUOUS_ID,
    local_positions=32,
)
PROFILE = """robot = "tcp://127.0.0.1:5555"
seconds = 20.0
[realtime]
fifo_priority = 80
[cameras.front]
source = "http://127.0.0.1/stream"
crop = [0, 0, 640, 480]
frame_size = [640, 480]
"""


@dataclass(slots=True)
class FormatResult:
    """Outcomes of one format."""

    name: str
    """Name of the format."""
    inputs: int = 0
    """Number of inputs."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of inputs that were read, refused, or are findings."""
    largest_cpu_s: float = 0.0
    """Most processor time of a call. s"""
    largest_mb: float = 0.0
    """Most memory of a call beyond the memory before it. MB"""
    findings: list[str] = field(default_factory=list)
    """A few findings in words."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: a good file and its reader."""

    name: str
    """Name of the format."""
    path: Path
    """File that the reader reads."""
    good: bytes
    """Content of a good file."""
    read: Callable[[], object]
    """Reads the file."""
    inside: Callable[[np.random.Generator], bytes] | None = None
    """Returns a file whose checksums hold and whose content is mutated; `None` if it has none."""

    def mutated(self, draw: np.random.Generator) -> bytes:
        """Return a mutated file; half of them are mutated inside, if the format has an inside."""
        if self.inside is not None and draw.random() < 0.5:
            return self.inside(draw)[:LARGEST_BYTES]
        return mutated(self.good, draw)


def mutated(good: bytes, draw: np.random.Generator) -> bytes:
    """Return a good file after a few mutations, most often one."""
    data = good
    for _ in range(min(4, int(draw.geometric(0.6)))):
        mutate = MUTATIONS[int(draw.integers(len(MUTATIONS)))]
        data = mutate(data, draw) if data else data
    return data[:LARGEST_BYTES]


def flip(data: bytes, draw: np.random.Generator) -> bytes:
    """Set a few bytes to anything."""
    changed = bytearray(data)
    for _ in range(int(draw.integers(1, 9))):
        changed[draw.integers(len(changed))] = draw.integers(256)
    return bytes(changed)


def cut(data: bytes, draw: np.random.Generator) -> bytes:
    """Cut the end off."""
    return data[: int(draw.integers(len(data)))]


def repeat(data: bytes, draw: np.random.Generator) -> bytes:
    """Repeat a part up to some thousand times."""
    start = int(draw.integers(len(data)))
    part = data[start : start + int(draw.integers(1, 65))]
    return (
        data[:start] + part * int(draw.integers(2, 1 << int(draw.integers(2, 13)))) + data[start:]
    )


def remove(data: bytes, draw: np.random.Generator) -> bytes:
    """Leave a part out."""
    start = int(draw.integers(len(data)))
    return data[:start] + data[start + int(draw.integers(1, 65)) :]


def wild_length(data: bytes, draw: np.random.Generator) -> bytes:
    """Write a wild number of 4 or 8 bytes over a place."""
    size = int(draw.choice([4, 8]))
    at = int(draw.integers(len(data)))
    value = (1 << int(draw.integers(8 * size))) - int(draw.integers(2))
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def wild_number(data: bytes, draw: np.random.Generator) -> bytes:
    """Exchange a written number for a wild one."""
    found = list(re.finditer(rb"\d+", data[:20_000]))
    if not found:
        return data
    place = found[int(draw.integers(len(found)))]
    return data[: place.start()] + bytes(draw.choice(WILD)) + data[place.end() :]


def nest(data: bytes, draw: np.random.Generator) -> bytes:
    """Put thousands of opening brackets or dotted names in."""
    at = int(draw.integers(len(data)))
    part = [b"[", b"{", b'{"a":', b"a.", b"(", b"[["][int(draw.integers(6))]
    return data[:at] + part * int(draw.integers(1, 20_000)) + data[at:]


WILD = np.array(
    [b"-1", b"0", b"1e400", b"NaN", b"Infinity", b"1099511627776", b"9" * 30, b"9" * 5000, b'"x"'],
    dtype=object,
)
MUTATIONS: tuple[Mutate, ...] = (
    flip, flip, flip, cut, repeat, remove, wild_length, wild_number, nest,
)  # fmt: skip


def formats(folder: Path) -> list[Format]:
    """Write a good file of each format, and return its readers."""
    made = [_manifest(folder), _profile(folder), _episode(folder), _recording(folder)]
    checkpoint = _checkpoint(folder)
    return [*made, _weights(folder), checkpoint]


def _manifest(folder: Path) -> Format:
    path = folder / MANIFEST_FILE
    good = (SHIPPED_BUNDLE / MANIFEST_FILE).read_bytes()
    return Format("bundle manifest", path, good, lambda: load_manifest(folder))


def _profile(folder: Path) -> Format:
    path = folder / "arm.toml"
    return Format("TOML profile", path, PROFILE.encode(), lambda: resolve(RunOptions, None, path))


def _episode(folder: Path) -> Format:
    path = folder / "7.npz"
    actions = np.zeros((5, 3), np.float32)
    episode = Episode(7, True, (np.ones((5, 3), np.float32),), actions, actions)
    episode.save(path, SPEC)
    good = path.read_bytes()

    def inside(draw: np.random.Generator) -> bytes:
        with zipfile.ZipFile(BytesIO(good)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = list(members)[int(draw.integers(len(members)))]
        made = BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            for each, data in members.items():
                archive.writestr(each, mutated(data, draw) if each == name else data)
        return made.getvalue()

    return Format("NPZ episode", path, good, lambda: Episode.load(path, SPEC), inside)


def _recording(folder: Path) -> Format:
    path = folder / "run.mcap"
    clock = VirtualClock(10**9)
    policy = Policy.of(SPEC, DIMS, ScriptedEngine([FIRST_CONTINUOUS_ID + 512] * 3))
    loop = policy.control(ScriptedRobot(SPEC, clock), clock)
    with Recorder(path, RunRecord.of("scripted", SPEC, "a machine", clock)) as recorder:
        loop.run(10, TickRecorder(recorder, loop))
        recorder.close("done")

    def read() -> None:
        recording = Recording(path)
        summarise(recording)
        policy.reset()
        comparison = Comparison(recording, policy)
        for stamped in recording.messages():
            comparison.take(stamped)
        str(recording.incomplete)

    def inside(draw: np.random.Generator) -> bytes:
        records = RecordBuilder()
        for each in kept:
            found = each
            if isinstance(each, Chunk):
                data = mutated(zstandard.decompress(each.data), draw)
                found = replace(
                    each,
                    data=zstandard.compress(data),
                    uncompressed_size=len(data),
                    uncompressed_crc=0,
                )
            elif isinstance(each, Metadata) and draw.random() < 0.1:
                name = list(each.metadata)[int(draw.integers(len(each.metadata)))]
                value = mutated(each.metadata[name].encode(), draw).decode(errors="replace")
                found = replace(each, metadata=each.metadata | {name: value})
            found.write(records)
        made: bytes = records.end()  # type: ignore[no-untyped-call]
        return MAGIC + made

    good = path.read_bytes()
    outer = StreamReader(BytesIO(good), emit_chunks=True).records
    kept = [each for each in outer if isinstance(each, Header | Schema | Chunk | Metadata)]
    return Format("MCAP recording", path, good, read, inside)


def _weights(folder: Path) -> Format:
    path = folder / "model.safetensors"
    from gatort.policies.model import Gato
    from gatort.policies.weights import write_weights

    torch.manual_seed(0)
    write_weights(Gato(SPEC, DIMS), path)
    places = np.empty((2, 0), np.int64)

    def read() -> None:
        with open_regular(path, "weights", GatortError) as file:
            NativeModel(file, path, DIMS, "fp32", 64, places, norm_biases=True)

    return Format("safetensors", path, path.read_bytes(), read)


def _checkpoint(folder: Path) -> Format:
    directory = folder / "training"
    config = TrainConfig()
    dims = preset("stack").model_copy(update=DIMS.model_dump())
    trainer = Trainer(SPEC, dims, config, directory, device=torch.device("cpu"))
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()
    trainer.save()
    path = directory / CHECKPOINT
    return Format("checkpoint", path, path.read_bytes(), trainer._resume)  # noqa: SLF001


def measure(form: Format, data: bytes, result: FormatResult) -> None:
    """Read one input and note its outcome, processor time and memory."""
    form.path.write_bytes(data)
    before_mb = _memory_mb(peak=False)
    Path("/proc/self/clear_refs").write_text("5")  # Begins the peak of memory anew (proc(5)).
    begun_s = time.process_time()
    outcome = "read"
    try:
        form.read()
    except GatortError:
        outcome = "refused"
    except Exception:  # noqa: BLE001  # every other one is a finding
        outcome = "finding"
        _note(result, traceback.format_exc(limit=-3))
    cpu_s = time.process_time() - begun_s
    taken_mb = _memory_mb(peak=True) - before_mb

    if outcome != "finding" and (cpu_s > MOST_CPU_S or taken_mb > MOST_MB):
        outcome = "finding"
        _note(result, f"{cpu_s:.2f} s, {taken_mb:.0f} MB: {data[:200]!r}")
    result.inputs += 1
    result.outcomes[outcome] += 1
    result.largest_cpu_s = max(result.largest_cpu_s, cpu_s)
    result.largest_mb = max(result.largest_mb, taken_mb)


def _note(result: FormatResult, sentence: str) -> None:
    if sentence not in result.findings and len(result.findings) < 20:
        result.findings.append(sentence)


def _memory_mb(*, peak: bool) -> float:
    name = "VmHWM" if peak else "VmRSS"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (found,) = re.findall(rf"{name}:\s+(\d+) kB", status)
    return int(found) / 1024


def fuzz(inputs: int, seed: int, *, shown: bool, only: str = "") -> list[FormatResult]:
    """Read mutated files of each format.

    Args:
        inputs: number of inputs of each format.
        seed: seed of the mutations.
        shown: show the progress.
        only: part of the name of the formats to read; all by default.
    """
    results = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, form in enumerate(formats(Path(folder))):
            if only not in form.name:
                continue
            draw = np.random.default_rng((seed, number))
            result = FormatResult(form.name)
            form.path.write_bytes(form.good)
            form.read()
            for _ in track(range(inputs), form.name, disable=not shown):
                measure(form, form.mutated(draw), result)
            results.append(result)
    return results


def table(results: list[FormatResult]) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| format | inputs | read | refused | findings | largest CPU s | largest MB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.name} | {each.inputs} | {each.outcomes['read']} | {each.outcomes['refused']} "
        f"| {each.outcomes['finding']} | {each.largest_cpu_s:.2f} | {each.largest_mb:.0f} |"
        for each in results
    ]
    return "\n".join(lines)


def main() -> int:
    """Fuzz every format, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=20_000, help="inputs of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the name of the formats to read")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = fuzz(arguments.inputs, arguments.seed, shown=True, only=arguments.only)

    print(table(results))
    for each in results:
        for finding in each.findings:
            print(f"{each.name}: {finding}")
    if arguments.json is not None:
        # `asdict` makes a counter count the items of the counter.
        formats_read = [asdict(each) | {"outcomes": dict(each.outcomes)} for each in results]
        record = {"seed": arguments.seed, "formats": formats_read}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(any(each.outcomes["finding"] for each in results))


if __name__ == "__main__":
    sys.exit(main())
