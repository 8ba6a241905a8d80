"""Sentences on values that pydantic refuses, in gatort's words: expected, found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails, PydanticCustomError

LONGEST_FOUND: Final = 100
"""Longest part of a found value in a sentence, in characters."""
_OWN: Final = "value_error"
"""Kind of pydantic's report whose sentence is gatort's own, and whole."""
_EXPECTED: Final = {
    "extra_forbidden": "no such key",
    "finite_number": "a finite number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "tuple_type": "a list",
    "named_tuple_type": "a list",
    "dict_type": "named values",
    "model_type": "named values",
}
"""Expectation by the kind of pydantic's report, with the report's own numbers."""


def said(expectation: str) -> WrapValidator:
    """Return a validator that gives one expectation for whatever is wrong with a value.

    Args:
        expectation: sentence that begins with "expected"; the found value is added.
    """

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError:
            # A brace would be a place for a value.
            raise PydanticCustomError("said", "{text}", {"text": expectation}) from None

    return WrapValidator(validate)


def finding(details: ErrorDetails) -> str:
    """Return the expectation in one place, and the value that was found there."""
    kind, found = details["type"], details["input"]
    message = details["msg"].removeprefix("Value error, ")
    if kind == _OWN:
        return message
    if kind == "missing":
        return "expected a value, found none"
    if kind == "json_invalid":
        _, _, place = message.rpartition(" at ")
        return f"expected JSON, found text that is none at {place}"
    if found != found:  # only NaN differs from itself; any range refuses it
        return f"expected a finite number, found {found!r}"
    return f"{_expectation(kind, message, details.get('ctx', {}))}, found {shown(found)}"


def first_error(error: ValidationError, whole: str) -> str:
    """Describe the first invalid field, or the whole by its name."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {finding(first)}"


def causes(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's reports without those that only follow from another one.

    A list whose only value is refused is also reported as too short.
    """
    found = error.errors(include_url=False)
    return [each for each in found if not any(_is_within(other, each) for other in found)]


def _is_within(inner: ErrorDetails, outer: ErrorDetails) -> bool:
    depth = len(outer["loc"])
    return len(inner["loc"]) > depth and inner["loc"][:depth] == outer["loc"]


def _expectation(kind: str, message: str, limits: Mapping[str, Any]) -> str:
    if kind in _EXPECTED:
        numbers = {name: _number(value) for name, value in limits.items()}
        expected = _EXPECTED[kind].format(**numbers)
        return "expected " + re.sub("( 1 [a-z]+)s$", r"\1", expected)
    text = message.removeprefix("Input should be ")
    if kind == "literal_error":
        text = text.replace("'", "")
    return f"expected {text}" if text != message else f"{text[:1].lower()}{text[1:]}"


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(found: Any) -> str:
    """Return a found value for a sentence, cut where it is long."""
    if isinstance(found, bool | dict | list | tuple):
        text = json.dumps(found, default=str, ensure_ascii=False)
    else:
        text = repr(found)
    return text if len(text) <= LONGEST_FOUND else f"{text[:LONGEST_FOUND]}…"


def of_other_kinds(written: Any, read: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield each written value that pydantic read as another kind: `true` as 1, or "3" as 3.

    Args:
        written: value in a file.
        read: value that pydantic made of it.
        key: place of the value in the file.

    Yields:
        Its key, the written value and the read one.
    """
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            yield from of_other_kinds(value, read.get(name), f"{key}.{name}".strip("."))
    elif isinstance(written, list) and isinstance(read, list | tuple):
        for index, (value, found) in enumerate(zip(written, read, strict=False)):
            yield from of_other_kinds(value, found, f"{key}.{index}")
    elif isinstance(written, bool | int | float | str) and (
        isinstance(read, bool) != isinstance(written, bool)
        or (isinstance(read, int | float) and isinstance(written, str))
    ):
        yield key, written, read
