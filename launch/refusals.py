"""Sentences for values and names that are not valid, from pydantic's report."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails


def describe(error: ValidationError, source: str, kind: type[BaseModel] | None = None) -> str:
    """Return pydantic's report as one sentence.

    The sentence names each key with the expectation and the found value. It lists the valid keys
    where a key is unknown.

    Args:
        error: pydantic's report.
        source: origin of the values, for example a file.
        kind: options class that refused the values.
    """
    found = error.errors()
    places = dict.fromkeys(
        details["loc"][:-1] for details in found if details["type"] == "extra_forbidden"
    )
    parts = [_describe_one(details, kind) for details in found]
    parts += [_valid_keys(kind, place) for place in places]
    return f"{source}: {'; '.join(parts)}"


def finding(details: ErrorDetails) -> str:
    """Return pydantic's expectation in one place and the value that it found there."""
    expected = details["msg"]
    return f"{expected[:1].lower()}{expected[1:]}, found {details['input']!r}"


def unknown(noun: str, name: str, valid: Sequence[str]) -> str:
    """Return a clause that calls a name unknown and suggests the closest valid one."""
    close = get_close_matches(name.rpartition(".")[2], valid, n=1)
    return f"unknown {noun} {name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")


def _describe_one(details: ErrorDetails, kind: type[BaseModel] | None) -> str:
    key = ".".join(map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        return unknown("key", key, _keys(kind, details["loc"][:-1]))
    return f"{key}: {finding(details)}"


def _valid_keys(kind: type[BaseModel] | None, place: tuple[int | str, ...]) -> str:
    where = f" of {'.'.join(map(str, place))}" if place else ""
    return f"valid keys{where} are {', '.join(_keys(kind, place))}"


def _keys(kind: type[BaseModel] | None, location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are valid at a location inside a nested options class."""
    found: Any = kind
    for part in location:
        if get_origin(found) is dict:  # A table of tables whose names are free.
            found = get_args(found)[1]
            continue
        field = found.model_fields.get(str(part)) if _is_model(found) else None
        found = field.annotation if field is not None else None
    return sorted(found.model_fields if _is_model(found) else ())


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
