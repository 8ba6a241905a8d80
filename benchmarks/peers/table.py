"""The page that shows what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from work import ACTION_TOKENS, PROMPTS, SIZES, VOCABULARY, WINDOW_TOKENS, Run, Settings

TITLES = {
    "gatort": "gatort, native",
    "gatort_onnx": "gatort, ONNX Runtime",
    "transformers": "transformers, StaticCache, eager",
    "transformers_compiled": "transformers, StaticCache, compiled",
    "genai": "onnxruntime-genai",
    "openvino": "OpenVINO, stateful",
}
WEIGHT_BYTES = {"fp32": 4, "int8": 1}
BAR = 0.67
HEAD = """| engine | settings | p50 ms | p99 ms | max ms | gatort's p50 / its | share of read bandwidth | equal tokens |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Result:
    """One engine at one size, precision and prefill length."""

    size: str
    precision: str
    prefill: int
    engine: str
    settings: Settings
    runs: list[Run]

    @property
    def group(self) -> tuple[str, str, int]:
        """What is compared with what."""
        return self.size, self.precision, self.prefill

    @property
    def ticks_ms(self) -> list[float]:
        """Of all runs."""
        return [tick_ms for run in self.runs for tick_ms in run.ticks_ms]

    @property
    def p50_ms(self) -> float:
        """The median of the runs' medians, so that one disturbed run does not count."""
        return median(median(run.ticks_ms) for run in self.runs)

    @property
    def p99_ms(self) -> float:
        """Of all ticks."""
        return (
            quantiles(self.ticks_ms, n=100, method="inclusive")[98]
            if len(self.ticks_ms) > 1
            else self.ticks_ms[0]
        )

    @property
    def bytes_read(self) -> int:
        """What a tick's passes must read: every matrix at its precision and the whole float32 cache, in each."""
        size = SIZES[self.size]
        frame = self.prefill + ACTION_TOKENS - 1
        cache = 2 * size.layers * size.width * (WINDOW_TOKENS // frame * frame) * 4
        return ACTION_TOKENS * (size.weights * WEIGHT_BYTES[self.precision] + cache)


def equal_share(result: Result, reference: Result) -> float:
    """The share of tokens that are the reference's, position by position."""
    pairs = [
        (token, wanted)
        for given, expected in zip(result.runs[0].tokens, reference.runs[0].tokens, strict=True)
        for token, wanted in zip(given, expected, strict=True)
    ]
    return sum(token == wanted for token, wanted in pairs) / len(pairs)


def write_page(path: Path, results: list[Result], read_bytes_s: float, machine: str) -> None:
    """Write docs/peers.md."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result)
    sections = [
        _section(group, groups[size, "fp32", prefill], read_bytes_s)
        for (size, _, prefill), group in groups.items()
    ]
    path.write_text(_head(results, read_bytes_s, machine) + "\n".join(sections), encoding="utf-8")


def _head(results: list[Result], read_bytes_s: float, machine: str) -> str:
    versions = sorted({run.versions for result in results for run in result.runs})
    sizes = "; ".join(
        f"{name} is {size.layers} layers of {size.heads} heads of {size.head_size}, feed-forward {size.ff_width}"
        for name, size in SIZES.items()
    )
    return f"""# The same ticks through gatort and its peers

`make bench` made this page; do not edit it by hand.

- Machine: {machine}.
- Peers: {"; ".join(versions)}.

Every engine runs one random Llama: RMSNorm, SwiGLU, rotary positions, as many key heads as query heads, the head tied to
the embeddings. The blocks of gatort become one when the norm and the gate are exchanged. {sizes}.
The vocabulary is gatort's {VOCABULARY} action bins for every engine.

A tick reads 45 or 60 new tokens on top of a full window (988 or 1005 with them) and decodes 7 more. It yields 8 tokens, each
the likeliest. Bringing the cache back afterwards is not timed, although OpenVINO must copy its state for it. Each engine runs
in a process of its own with the fastest of the settings that `benchmarks/peers` names for it. Engines take turns in random
order, {len(results[0].runs)} times, and p50 is the median of the turns' medians.

- **Equal tokens**: of {PROMPTS} prompts × {ACTION_TOKENS} tokens, the share that float32 gatort gives too. In int8 each
  engine rounds in its own way, and one different token changes those after it.
- **Share of read bandwidth**: the bytes of weights and cache that a tick's passes must read, over p50. It is relative to the
  {read_bytes_s / 1e9:.1f} GB/s at which all cores read an array several times the last-level cache in the same run. The models
  may stay in that cache in part, so a share may exceed 100 %.

"""


def _section(group: list[Result], reference: list[Result], read_bytes_s: float) -> str:
    first = group[0]
    gatort = _of("gatort", group)
    rows = [
        _row(result, gatort, _of("gatort", reference), read_bytes_s)
        for result in sorted(group, key=lambda r: r.p50_ms)
    ]
    return (
        f"## {first.size}, {first.precision}, prefill {first.prefill}\n\n{_verdict(group, read_bytes_s)}\n\n{HEAD}"
        + "\n".join(rows)
        + "\n"
    )


def _verdict(group: list[Result], read_bytes_s: float) -> str:
    """The bar in a sentence; where it is missed, beside what reading alone takes."""
    gatort, peers = (
        _of("gatort", group),
        [result for result in group if not result.engine.startswith("gatort")],
    )
    if gatort is None or not peers:
        return "No peer to compare with."
    best = min(peers, key=lambda result: result.p50_ms)
    ratio = gatort.p50_ms / best.p50_ms
    verdict = f"gatort takes {ratio:.2f} × the best peer's p50 ({TITLES[best.engine]}); the bar of {BAR} is"
    if ratio <= BAR:
        return f"{verdict} met."
    reading_ms = 1e3 * gatort.bytes_read / read_bytes_s
    return f"{verdict} missed: it is {BAR * best.p50_ms:.1f} ms, and reading alone takes {reading_ms:.1f} ms."


def _row(
    result: Result, gatort: Result | None, reference: Result | None, read_bytes_s: float
) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in result.settings.items())
    ratio = f"{gatort.p50_ms / result.p50_ms:.2f}" if gatort else "–"
    equal = f"{equal_share(result, reference):.0%}" if reference else "–"
    share = result.bytes_read / (result.p50_ms * 1e-3) / read_bytes_s
    figures = f"{result.p50_ms:.1f} | {result.p99_ms:.1f} | {max(result.ticks_ms):.1f}"
    return f"| {TITLES[result.engine]} | {settings} | {figures} | {ratio} | {share:.0%} | {equal} |"


def _of(engine: str, group: list[Result]) -> Result | None:
    return next((result for result in group if result.engine == engine), None)
