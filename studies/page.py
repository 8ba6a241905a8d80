"""The report of a study as one HTML page, which loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from math import log10
from typing import Final

from gatort.runtime.outputs import MARK
from gatort.runtime.wording import counted
from gatort.sim.trials.statistics import wilson_95

from .findings import Agreement, Findings, PairedFigures, VariantFigures
from .record import StudyRecord

WIDTH: Final = 640
"""Width of a chart. px"""
ROW: Final = 34
LEFT: Final = 170
"""Room for the names of variants. px"""
RIGHT: Final = 20
CURVE_HEIGHT: Final = 220
SIDE: Final = 260
"""Side of the picture of two robots. px"""

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --pale: #5d6673; --line: #d5dae1; --paper: #fff;
  --mark: #1f5fbf; --good: #146c37; --bad: #a3261b; --fill: #e6edf8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --pale: #a2abb8; --line: #3b424c;
  --paper: #15181c; --mark: #7fb0ff; --good: #6fd08c; --bad: #ff9084; --fill: #22304a; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.answer { font-size: 1.25rem; border-left: 6px solid var(--mark); padding: .3rem 0 .3rem 1rem; }
.better { color: var(--good); } .worse { color: var(--bad); }
.note { color: var(--pale); } .warn { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; }
.facts th, .facts td { text-align: left; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg .axis { stroke: var(--line); } svg .mark { stroke: var(--mark); fill: var(--mark); }
svg .span { stroke: var(--mark); stroke-width: 3; }
svg .curve { fill: none; stroke: var(--mark); stroke-width: 2; } svg .limit { stroke: var(--bad);
  stroke-dasharray: 5 4; } svg .pale { fill: var(--pale); }
code { font-size: .92em; overflow-wrap: anywhere; }
"""


def page(record: StudyRecord, findings: Findings) -> str:
    """Return the page of a study's answer so far."""
    design = findings.design
    body = [
        f"<h1>{escape(design.question)}</h1>",
        *(f'<p class="answer">{sentence}</p>' for sentence in answers(findings)),
        *_amendment_note(record),
        _success(findings),
        _comparisons(findings),
        _layouts(findings),
        _stages(findings),
        _control(findings),
        _cells(findings),
        *(_curve(findings, variant) for variant in findings.wealth_p),
        *(_agreement(each) for each in findings.agreements),
        _plan(record, findings),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{MARK}">\n'
        f"<title>{escape(design.question)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def answers(findings: Findings) -> list[str]:
    """Return one sentence per comparison, or one on the only variant, as HTML."""
    if not findings.comparisons:
        (only,) = findings.variants
        if only.rate is None or only.wilson_95 is None:
            return ["No trial was run yet."]
        low, high = only.wilson_95
        counts = f"{only.successes} of {counted(only.trials, 'trial')}: {only.rate:.1%}"
        interval = f"95 % interval {low:.1%} to {high:.1%}"
        return [f"{escape(only.name)} succeeded in {counts} ({interval})."]
    return [_answer(each, findings) for each in findings.comparisons]


def _answer(found: PairedFigures, findings: Findings) -> str:
    variant, reference = escape(found.variant), escape(found.reference)
    if found.verdict == "not finished":
        return (
            f"No answer yet on {variant} and {reference}, after {findings.done} of "
            f"{counted(findings.planned, 'trial')}."
        )
    figures = f"{_points(found)}, p = {found.adjusted_p:.2g}"
    if found.verdict == "no difference shown":
        return f"No difference was shown between {variant} and {reference}: {figures}."
    return (
        f'{variant} is <strong class="{found.verdict}">{found.verdict}</strong> than '
        f"{reference}: {figures}."
    )


def _points(found: PairedFigures) -> str:
    return found.points.replace("-", "−")


def _amendment_note(record: StudyRecord) -> Iterable[str]:
    late = [each for each in record.amendments if each.trials]
    if late:
        yield (
            f'<p class="warn">The study was amended after {counted(late[0].trials, "trial")} '
            f"({escape(', '.join(late[0].changed))}). Its answer was not planned before all of "
            "its trials.</p>"
        )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "figures") -> str:
    titles = "".join(f'<th scope="col">{escape(each)}</th>' for each in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _rate(successes: int, trials: int) -> str:
    if not trials:
        return "–"
    low, high = wilson_95(successes, trials)
    return f"{successes} of {trials}: {successes / trials:.1%} ({low:.1%} – {high:.1%})"


def _success(findings: Findings) -> str:
    figures = [each for each in findings.variants if each.trials]
    if not figures:
        return ""
    height = ROW * len(figures) + 30
    label = "Success rate of each variant with its 95 % Wilson interval"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" aria-label="{label}">'
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        x = _x(share)
        parts += [
            f'<line class="axis" x1="{x}" x2="{x}" y1="5" y2="{height - 22}"/>',
            f'<text class="pale" x="{x}" y="{height - 5}" text-anchor="middle">{share:.0%}</text>',
        ]
    for place, each in enumerate(figures):
        low, high = wilson_95(each.successes, each.trials)
        y = ROW * place + 22
        parts += [
            f'<text x="0" y="{y + 4}">{escape(each.name)}</text>',
            f'<line class="span" x1="{_x(low)}" x2="{_x(high)}" y1="{y}" y2="{y}"/>',
            f'<circle class="mark" cx="{_x(each.successes / each.trials)}" cy="{y}" r="6"/>',
        ]
    rows = [
        (each.name, _rate(each.successes, each.trials), str(each.void))
        for each in findings.variants
    ]
    table = _table(("variant", "success (95 % Wilson interval)", "void"), rows)
    return "<h2>Success</h2>" + "".join(parts) + "</svg>" + table


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _comparisons(findings: Findings) -> str:
    rows = [
        (
            f"{each.variant} against {each.reference}",
            str(each.pairs.layouts),
            str(each.both),
            str(len(each.only_variant)),
            str(len(each.only_reference)),
            str(each.pairs.layouts - each.both - len(each.only_variant) - len(each.only_reference)),
            _points(each),
            f"{each.p:.3g}",
            f"{each.adjusted_p:.3g}",
        )
        for each in findings.comparisons
        if each.pairs is not None
    ]
    if not rows:
        return ""
    head = (
        "comparison",
        "layouts",
        "both",
        "only the variant",
        "only the reference",
        "neither",
        "difference",
        "p",
        "adjusted p",
    )
    test = findings.design.analysis.test
    return f"<h2>Comparison ({_TESTS[test]})</h2>" + _table(head, rows)


_TESTS: Final = {
    "mcnemar": "exact McNemar test, 95 % Tango interval",
    "sequential": "sequential test of the discordant layouts, interval that holds at any time",
    "barnard": "Barnard's test, 95 % Newcombe interval",
}


def _layouts(findings: Findings) -> str:
    rows = [
        (name, ", ".join(map(str, sorted(seeds))) or "none")
        for each in findings.comparisons
        for name, seeds in (
            (f"only {each.variant}", each.only_variant),
            (f"only {each.reference}", each.only_reference),
        )
    ]
    if not rows:
        return ""
    return (
        "<h2>Layouts with a difference</h2>"
        + _table(("succeeded", "seeds"), rows, kind="facts")
        + '<p class="note"><code>gatort run --bundle BUNDLE --seed SEED --viewer</code> shows one '
        "of them.</p>"
    )


def _stages(findings: Findings) -> str:
    stages = list(dict.fromkeys(stage for each in findings.variants for stage in each.reached))
    if not stages:
        return ""
    rows = [
        (stage, *(_share(each.reached.get(stage, 0), each.trials) for each in findings.variants))
        for stage in stages
    ]
    rows.append(("succeeded", *(_share(each.successes, each.trials) for each in findings.variants)))
    head = ("stage", *(each.name for each in findings.variants))
    return "<h2>Stages that the trials came to</h2>" + _table(head, rows)


def _share(count: int, trials: int) -> str:
    return f"{count} ({count / trials:.0%})" if trials else "–"


def _control(findings: Findings) -> str:
    head = (
        "variant",
        "median time to success",
        "smoothness (SPARC)",
        "ticks",
        "refused",
        "misses",
        "undelivered",
        "trials with a stop or refusal",
    )
    return "<h2>Time, motion and control</h2>" + _table(head, map(_control_row, findings.variants))


def _control_row(each: VariantFigures) -> tuple[str, ...]:
    return (
        each.name,
        f"{each.success_s:.2f} s" if each.success_s is not None else "–",
        f"{each.sparc:.2f}" if each.sparc is not None else "–",
        *(f"{count:,}" for count in (each.ticks, each.refused, each.misses, each.undelivered)),
        str(each.stopped),
    )


def _cells(findings: Findings) -> str:
    design = findings.design
    if len(design.cells) == 1:
        return ""
    found = {(each.robot, each.condition, each.variant): each for each in findings.cells}
    rows = []
    for robot, condition in design.cells:
        cells = [found[robot, condition, variant] for variant in design.variants]
        rows.append((f"{robot}, {condition}", *(_rate(c.successes, c.trials) for c in cells)))
    return "<h2>Robots and conditions</h2>" + _table(("", *design.variants), rows)


def _curve(findings: Findings, variant: str) -> str:
    """Draw the p value of a sequential test over the layouts, on a logarithmic scale."""
    values = findings.wealth_p[variant]
    if not values:
        return ""
    limit = findings.design.analysis.significance
    least = min(*values, limit) / 2
    span = max(len(values) - 1, 1)

    def y(p: float) -> float:
        return round(10 + (CURVE_HEIGHT - 40) * log10(p) / log10(least), 1)

    points = " ".join(
        f"{round(LEFT + place / span * (WIDTH - LEFT - RIGHT), 1)},{y(p)}"
        for place, p in enumerate(values)
    )
    return (
        f"<h2>Evidence on {escape(variant)}, layout by layout</h2>"
        f'<svg viewBox="0 0 {WIDTH} {CURVE_HEIGHT}" width="{WIDTH}" role="img" '
        f'aria-label="p value over {len(values)} layouts">'
        f'<polyline class="curve" points="{points}"/>'
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(limit)}" y2="{y(limit)}"/>'
        f'<text x="0" y="{y(limit) + 4}">answer at p = {limit:g}</text>'
        f'<text x="0" y="{y(1) + 4}">p = 1</text>'
        f'<text class="pale" x="{WIDTH - RIGHT}" y="{CURVE_HEIGHT - 8}" text-anchor="end">'
        f"{counted(len(values), 'layout')}</text></svg>"
    )


def _agreement(found: Agreement) -> str:
    dots = "".join(
        f'<circle class="mark" cx="{40 + (SIDE - 50) * x:.1f}" '
        f'cy="{SIDE - 40 - (SIDE - 50) * y:.1f}" r="5"/>'
        for x, y in found.rates
    )
    correlation = "–" if found.pearson_r is None else f"{found.pearson_r:.2f}"
    return (
        f"<h2>{escape(found.robot)} as a prediction of {escape(found.target)}</h2>"
        f"<p>Pearson r {correlation}; mean maximum rank violation "
        f"{found.rank_violation:.3f} (0 is best), over "
        f"{counted(len(found.rates), 'pair')} of success rates.</p>"
        f'<svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" role="img" '
        'aria-label="Success rates on the two robots">'
        f'<line class="axis" x1="40" y1="{SIDE - 40}" x2="{SIDE - 10}" y2="{SIDE - 40}"/>'
        f'<line class="axis" x1="40" y1="{SIDE - 40}" x2="40" y2="10"/>'
        f'<line class="axis" x1="40" y1="{SIDE - 40}" x2="{SIDE - 10}" y2="10"/>{dots}'
        f'<text class="pale" x="40" y="{SIDE - 18}">success on {escape(found.robot)} →</text>'
        "</svg>"
    )


def _plan(record: StudyRecord, findings: Findings) -> str:
    design, analysis = findings.design, findings.design.analysis
    rows = [
        ("trials", f"{findings.done} of {findings.planned}"),
        ("layouts", f"{design.pairs}, seeds {design.seeds[0]} to {design.seeds[-1]}"),
        ("accepted probability of a false answer", f"{analysis.significance:g}"),
        ("smallest difference that matters", f"{100 * analysis.smallest_difference:.1f} points"),
        (f"found with a power of {analysis.power:g}", design.detectable),
        ("seed of the order", str(design.order_seed)),
        ("locked", record.lines[0].date),
        ("lock, SHA-256", record.lock_sha256),
        ("gatort", version("gatort")),
        *((f"bundle of {name}, SHA-256", each) for name, each in record.locked.bundles.items()),
        *(
            (
                f"amended after {counted(each.trials, 'trial')}",
                f"{', '.join(each.changed)}: {each.reason}",
            )
            for each in record.amendments
        ),
        *(
            (f"void trial {each.code} (seed {each.seed})", each.void or "")
            for each in record.trials
            if each.outcome is None
        ),
    ]
    return "<h2>Plan and record</h2>" + _table(("fact", "value"), rows, kind="facts")
