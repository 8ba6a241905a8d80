"""The design of a study: the file that a researcher writes.

A study asks if one variant of a policy succeeds more often than another. Variants are tried on the
same layouts, one after another in a random order. Everything that decides the answer stands in the
design, so that it is settled before the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from gatort.policies.loading import PolicyOptions
from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import first_error, of_other_kinds, said
from gatort.runtime.regular_file import read_regular
from gatort.runtime.remote.link import LinkConditions
from gatort.runtime.spec import Seed, Strict
from gatort.runtime.toml_file import parse_toml
from gatort.sim.make import SIMULATORS, RobotName
from gatort.sim.randomisation import NOMINAL_PHYSICS, Randomisation
from gatort.sim.tasks.seeds import TRIAL_SEEDS
from gatort.sim.view_randomisation import NOMINAL_VIEW, ViewRandomisation

from .power import MOST_PAIRS, Expectation, TestName, detectable_sentence, pairs_needed, power

MOST_BYTES: Final = 1 << 16

ShortName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,39}$"),
    said("expected a name of 1 to 40 characters: lower-case letters, digits, _, . and -"),
]
"""Name of a variant or a condition."""


def _widened(nominal: Strict) -> BeforeValidator:
    """Return a validator that adds the nominal value of each range that is absent."""
    return BeforeValidator(
        lambda found: {**nominal.model_dump(), **found} if isinstance(found, Mapping) else found
    )


ViewRanges = Annotated[ViewRandomisation, _widened(NOMINAL_VIEW)]
PhysicsRanges = Annotated[Randomisation, _widened(NOMINAL_PHYSICS)]


class Variant(PolicyOptions):
    """A policy under test: a bundle, and how it is computed."""

    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """CPU threads of one pass. Many trials run at once, and they share the cores."""


class Condition(Strict):
    """Circumstances of a simulated trial. A robot at an address has its own."""

    link: LinkConditions = LinkConditions()
    """Link between policy and robot."""
    view: ViewRanges | None = None
    """Ranges of the pictures, or `None` for the nominal look. Ranges that are absent hold the
    nominal value alone."""
    physics: PhysicsRanges | None = None
    """Ranges of physics and sensors, or `None` for the nominal arm, as for `view`."""

    @property
    def nominal(self) -> bool:
        """True if nothing varies."""
        return self.link.perfect and self.view is None and self.physics is None


class Analysis(Strict):
    """Test of a study, and how sure its answer must be."""

    test: TestName = "mcnemar"
    """Test of the difference in success.

    `mcnemar` is exact and looks once, at the end. `sequential` may look after every layout and
    stops the study when it is decided. `barnard` is for layouts that cannot be repeated."""
    significance: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Probability of a false "better" or "worse" that is accepted, over all comparisons."""
    power: Annotated[float, Field(gt=0, lt=1)] = 0.8
    """Probability with which the smallest difference is to be found."""
    expected_success: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Success rate that the reference is expected to have."""
    smallest_difference: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Smallest difference in success that matters."""

    @model_validator(mode="after")
    def _require_possible(self) -> Self:
        if self.smallest_difference > max(self.expected_success, 1 - self.expected_success):
            raise ValueError(
                f"smallest_difference: expected a difference from {self.expected_success:g} that "
                f"ends between 0 and 1, found {self.smallest_difference:g}"
            )
        return self

    @property
    def expectation(self) -> Expectation:
        """Success rates of reference and variant if the smallest difference is the true one.

        The variant is expected to be better, or worse where there is no room above.
        """
        better = self.expected_success + self.smallest_difference
        other = better if better <= 1 else self.expected_success - self.smallest_difference
        return Expectation(self.expected_success, other)


class Design(Strict):
    """A study."""

    question: Annotated[str, Field(min_length=1, max_length=500)]
    """Question in words, for the report."""
    variants: Annotated[dict[ShortName, Variant], Field(min_length=1, max_length=12)]
    """Policies under test. The first one is the reference, with which the others are compared."""
    conditions: Annotated[dict[ShortName, Condition], Field(min_length=1, max_length=40)] = Field(
        default_factory=lambda: {"nominal": Condition()}
    )
    """Circumstances of the trials."""
    robots: Annotated[tuple[RobotName, ...], Field(min_length=1, max_length=8)] = ("mujoco",)
    """Robots that every variant drives."""
    task: str | None = None
    """Task, for bundles that name none."""
    layouts: Annotated[int, Field(ge=1, le=MOST_PAIRS)] | None = None
    """Number of layouts on each robot under each condition. Default: as many as `analysis.power`
    needs."""
    first_seed: Seed = 5000
    """Seed of the first layout. Every robot and condition has layouts of its own."""
    order_seed: Seed = 0
    """Seed of the order of the trials."""
    seconds: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Longest trial, or `None` for the task's own duration."""
    analysis: Analysis = Analysis()

    @model_validator(mode="after")
    def _require_sense(self) -> Self:
        if len(set(self.robots)) < len(self.robots):
            raise ValueError("robots: expected each robot once, found one twice")
        real = [robot for robot in self.robots if robot not in SIMULATORS]
        varied = [name for name, each in self.conditions.items() if not each.nominal]
        if real and varied:
            raise ValueError(
                f"conditions.{varied[0]}: expected nothing to vary on {real[0]}, which has its own "
                "link, look and physics"
            )
        if self.layouts is None and self.pairs_needed is None:
            raise ValueError(
                f"layouts: expected a power of {self.analysis.power:g} with at most {MOST_PAIRS} "
                "layouts, found less; give a larger analysis.smallest_difference"
            )
        if self.pairs > MOST_PAIRS:
            raise ValueError(
                f"layouts: expected at most {MOST_PAIRS} over all robots and conditions, found "
                f"{self.pairs}"
            )
        if self.seeds[-1] not in TRIAL_SEEDS:
            raise ValueError(
                f"first_seed: expected layouts with seeds up to {TRIAL_SEEDS[-1]}, found "
                f"{self.seeds[-1]}"
            )
        return self

    @property
    def reference(self) -> str:
        """Name of the first variant."""
        return next(iter(self.variants))

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the variants that are compared with the reference."""
        return tuple(self.variants)[1:]

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Every robot with every condition."""
        return [(robot, condition) for robot in self.robots for condition in self.conditions]

    @property
    def significance_each(self) -> float:
        """Share of the significance that a plan grants to each comparison with the reference."""
        return self.analysis.significance / max(1, len(self.others))

    @property
    def layouts_per_cell(self) -> int:
        """Number of layouts on each robot under each condition."""
        if self.layouts is not None:
            return self.layouts
        return ceil((self.pairs_needed or MOST_PAIRS) / len(self.cells))

    @property
    def pairs(self) -> int:
        """Number of layouts in all: each is tried once by every variant."""
        return self.layouts_per_cell * len(self.cells)

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.pairs * len(self.variants)

    @property
    def seeds(self) -> range:
        """Seeds of the layouts."""
        return range(self.first_seed, self.first_seed + self.pairs)

    @cached_property
    def pairs_needed(self) -> int | None:
        """Number of layouts that the planned power needs; `None` if MOST_PAIRS are too few."""
        wanted = self.analysis
        return pairs_needed(wanted.test, wanted.expectation, self.significance_each, wanted.power)

    @property
    def planned_power(self) -> float:
        """Probability with which the study finds the smallest difference, if it is the true one."""
        wanted = self.analysis
        return power(wanted.test, wanted.expectation, self.significance_each, self.pairs)

    @property
    def detectable(self) -> str:
        """Success rates that the study tells from the reference's with the wanted power."""
        wanted = self.analysis
        return detectable_sentence(
            wanted.test, wanted.expected_success, self.significance_each, self.pairs, wanted.power
        )


PARTS: Final = (
    Design, Variant, Condition, Analysis, LinkConditions, ViewRandomisation, Randomisation
)  # fmt: skip
KEYS: Final = sorted({key for part in PARTS for key in part.model_fields})
"""Every key of a study's file."""


def read_design(path: Path) -> Design:
    """Read a study's file.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is not valid.
    """
    content = read_regular(path, "the file of a study (.toml)", ConfigError, MOST_BYTES)
    try:
        found = parse_toml(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected a study in TOML, found other text: {error}") from error
    try:
        design = Design.model_validate(_with_places(found, path.parent))
    except ValidationError as error:
        # A rule that concerns several keys names them itself.
        sentence = first_error(error, "the file").removeprefix("the file: ")
        raise ConfigError(f"{path}: {sentence}{_hint(error)}") from error
    for key, written, _ in of_other_kinds(found, design.model_dump()):
        if isinstance(written, bool):
            raise ConfigError(f"{path}: {key}: expected a number, found true or false")
    return design


def _hint(error: ValidationError) -> str:
    """Return a clause on an unknown key that is misspelt or in a table where it is not known."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden":
        return ""
    name = str(first["loc"][-1])
    if name in Design.model_fields:
        return f"; write {name} above the first [table]"
    close = get_close_matches(name, KEYS, 1)
    return f" (did you mean {close[0]!r}?)" if close and close[0] != name else ""


def _with_places(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the design with the paths of bundles taken from the folder of its file."""
    variants = found.get("variants")
    if not isinstance(variants, Mapping):
        return found
    return {**found, "variants": {name: _placed(each, folder) for name, each in variants.items()}}


def _placed(variant: Any, folder: Path) -> Any:
    bundle = variant.get("bundle") if isinstance(variant, Mapping) else None
    if not isinstance(bundle, str):
        return variant
    try:
        place = folder / Path(bundle).expanduser()
    except RuntimeError:  # `~name` of somebody unknown is the name of a folder.
        return variant
    return {**variant, "bundle": str(place)} if place.is_dir() else variant
