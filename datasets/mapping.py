"""A mapping file: the key, unit, order and rate that each feature of a data set stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, FiniteFloat, PositiveFloat, ValidationError, model_validator

from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import first_error
from gatort.runtime.regular_file import read_regular
from gatort.runtime.spec import Name, ObservationKey, PolicySpec, Strict
from gatort.runtime.toml_file import parse_toml

from . import lerobot_layout as layout

_MOST_BYTES: Final = 1 << 20
_MOST_COLUMNS: Final = 4096
Texts = Annotated[tuple[Name, ...], Field(max_length=_MOST_COLUMNS)]
Numbers = Annotated[tuple[FiniteFloat, ...], Field(max_length=_MOST_COLUMNS)]


class FeatureSource(Strict):
    """Feature of a data set that holds a key or the action."""

    model_config = ConfigDict(validate_by_name=False, validate_by_alias=True)

    feature: Name = Field(alias="from")
    """Name of the feature, such as `observation.state`."""
    columns: Annotated[tuple[int | Name, ...], Field(max_length=_MOST_COLUMNS)] | None = None
    """Numbers or names of the feature's values, in the key's order. Default: all of them."""
    unit: Name | Texts | None = None
    """Unit of the values in the data set, one for all or one for each. Default: the key's own."""
    scale: FiniteFloat | Numbers = 1.0
    """Factor on each value, after its unit became the key's."""
    offset: FiniteFloat | Numbers = 0.0
    """Number that is added after the factor."""
    colour: Literal["rgb", "bgr"] = "rgb"
    """Order of a picture's colours in the data set."""
    resize: bool = False
    """Make pictures of the key's size. Without it, another size is refused."""
    trust: bool = False
    """Take the values as they are, against their range and their statistics."""


class Mapping(Strict):
    """The keys, units, order and rates of a data set."""

    task: Name | None = None
    """Task in `gatort.sim.tasks`. Its first interface is the specification, unless one is given."""
    like: Path | None = None
    """Demonstrations or bundle whose specification the data must fit. Its values are compared with
    those of demonstrations."""
    specification: PolicySpec | None = None
    """Specification, written out."""
    fps: PositiveFloat | None = None
    """Ticks per second of a data set that does not say."""
    take_every: Annotated[int, Field(ge=1, le=1000)] = 1
    """Ticks of the data set for each tick that is kept."""
    succeeded: bool = True
    """Whether episodes succeeded, of a data set that does not say."""
    keys: dict[Name, FeatureSource] = Field(max_length=64)
    """Source of each observation key."""
    action: FeatureSource
    """Source of the action that was taken."""
    expert_action: FeatureSource | None = None
    """Source of the action that the policy shall learn. Default: the one that was taken."""

    @model_validator(mode="after")
    def _one_specification(self) -> Mapping:
        if self.like is not None and self.specification is not None:
            raise ValueError("expected like or specification, found both; leave one of them out")
        if self.like is None and self.specification is None and self.task is None:
            raise ValueError(
                "expected task, like or specification, found none; name the keys that the data "
                "must fit"
            )
        return self


def read_mapping(path: Path) -> Mapping:
    """Read a mapping file.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is not valid.
    """
    content = read_regular(path, "a mapping in TOML", ConfigError, _MOST_BYTES)
    try:
        mapping = Mapping.model_validate(parse_toml(content))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_error(error, 'the file')}{_valid(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected TOML, found other text: {error}") from error
    if mapping.like is None or mapping.like.is_absolute():
        return mapping
    # A path in the file starts at the file, wherever the command is given.
    return mapping.model_copy(update={"like": path.parent / mapping.like})


def _valid(error: ValidationError) -> str:
    """Return a clause with the valid keys where one is unknown."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden" or "specification" in first["loc"]:
        return ""
    kind = Mapping if len(first["loc"]) == 1 else FeatureSource
    valid = [field.alias or name for name, field in kind.model_fields.items()]
    return f"; valid ones are {', '.join(valid)}"


def own_mapping(spec: PolicySpec) -> Mapping:
    """Return the mapping of a data set that gatort wrote."""
    keys: dict[str, FeatureSource] = {}
    first = 0
    for key in spec.observations:
        columns = None
        if layout.is_fraction(key):
            columns = tuple(range(first, first + key.size))
            first += key.size
        keys[key.name] = _source(key, columns)
    return Mapping(
        specification=spec,
        keys=keys,
        action=FeatureSource.model_validate({"from": layout.ACTION}),
        expert_action=FeatureSource.model_validate({"from": layout.EXPERT_ACTION}),
    )


def _source(key: ObservationKey, columns: tuple[int, ...] | None) -> FeatureSource:
    return FeatureSource.model_validate({"from": layout.feature_of(key), "columns": columns})
