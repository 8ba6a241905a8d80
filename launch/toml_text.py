"""Values as TOML, which Python reads and does not write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def toml_text(values: Mapping[str, Any], table: str) -> str:
    """Return a table with its nested tables; `table` is its name, with dots."""
    lines = [f"{key} = {_value(value)}" for key, value in values.items() if not _is_table(value)]
    nested = [
        toml_text(value, f"{table}.{key}")
        for key, value in values.items()
        if value and _is_table(value)
    ]
    own = ["\n".join([f"[{table}]", *lines, ""])] if lines or not nested else []
    return "\n".join([*own, *nested])


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _value(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are TOML's too, but for one control character.
    return json.dumps(value, ensure_ascii=False, default=str).replace("\x7f", "\\u007F")
