"""Sentences for flags, values and names that are not valid: expected, found, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args, get_origin

from cyclopts import (
    Argument,
    ArgumentOrderError,
    CoercionError,
    ConsumeMultipleError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gatort.runtime.errors import ConfigError
from gatort.runtime.invalid_values import causes, finding
from gatort.runtime.wording import counted

LEAST_LIKENESS: Final = 0.7
"""Share of letters in common from which a valid name is suggested for a wrong one."""
NUMBERS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false"}
"""Names of the kinds of values."""


def describe(
    error: ValidationError,
    source: str,
    kind: type[BaseModel] | None = None,
    tables: tuple[str, ...] = (),
) -> str:
    """Return pydantic's report as one sentence.

    The sentence names each key with the expectation and the found value. It lists the valid keys
    where a key is unknown.

    Args:
        error: pydantic's report.
        source: origin of the values, for example a file.
        kind: options class that refused the values.
        tables: names of the tables that are valid beside the keys of the class.
    """
    found = causes(error)
    places = dict.fromkeys(
        details["loc"][:-1] for details in found if details["type"] == "extra_forbidden"
    )
    parts = [_describe_one(details, kind, tables) for details in found]
    parts += [_valid_keys(kind, place) for place in places]
    if any(_may_be_table(details) for details in found) and tables:
        parts.append(f"valid tables of commands are {', '.join(tables)}")
    return f"{source}: {'; '.join(parts)}"


def findings(error: ValidationError) -> str:
    """Return pydantic's report as one clause, without the names of fields."""
    return "; ".join(map(finding, causes(error)))


def unknown(noun: str, name: str, valid: Sequence[str]) -> str:
    """Return a clause that calls a name unknown and suggests the closest valid one."""
    tail = name.rpartition(".")[2]
    close = [
        match
        for each in (name, tail)
        for match in get_close_matches(each, valid, 1, LEAST_LIKENESS)
    ]
    return f"unknown {noun} {name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")


def refuse_ignored(because: str, **given: object) -> None:
    """Refuse flags that would have no effect.

    Args:
        because: condition under which they have none, such as "without --plot".
        **given: value by the name of its flag; false or `None` where it was not given.

    Raises:
        ConfigError: a flag was given.
    """
    for name, value in given.items():
        if value is not None and value is not False:
            flag = f"--{name.rstrip('_').replace('_', '-')}"
            raise ConfigError(f"{flag} has no effect {because}: leave it out")


def refuse_fields(
    because: str, options: BaseModel | None, *names: str, within: str | None = None
) -> None:
    """Refuse typed flags of an options class that would have no effect, as `refuse_ignored`.

    Args:
        because: condition under which they have none.
        options: the typed flags.
        *names: fields of their class.
        within: field that has these options, whose name their flags begin with.
    """
    typed = options.model_fields_set if options is not None else set()
    prefix = f"{within}." if within is not None else ""
    refuse_ignored(because, **{prefix + name: True for name in names if name in typed})


def flag_sentence(
    error: CycloptsError, given: Sequence[str], commands: Sequence[str], known: Sequence[Argument]
) -> str:
    """Return the sentence on a command line that cannot be parsed.

    Args:
        error: report of the parser.
        given: the command line.
        commands: names of all commands.
        known: arguments of the given command.
    """
    argument = error.argument
    match error:
        case UnknownCommandError(unused_tokens=[token, *_]):
            noun = "option" if token.startswith("-") else "command"
            return f"{unknown(noun, token, commands)}; valid commands are {', '.join(commands)}"
        case RepeatArgumentError(token=token):
            return _repeated(str(token.keyword), given, known)
        case ConsumeMultipleError(min_required=least) if argument is not None:
            return f"{argument.name}: expected at least {counted(least, 'value')}, found none"
        case CoercionError(argument=None, token=Token() as token) if valid := _keys(
            error.target_type, ()
        ):
            return f"{token.keyword}: expected keys among {', '.join(valid)}, found {token.value!r}"
        case CoercionError() if argument is not None:
            return f"{argument.name}: {_conversion(error)}"
        case CycloptsError(__cause__=ValidationError() as cause) if argument is not None:
            return "; ".join(_refused_value(argument, details) for details in causes(cause))
    return f"{_usage(error, given[0], known)}; see `gatort {given[0]} --help`"


def with_flag(sentence: str, arguments: Iterable[Argument]) -> str:
    """Return a sentence that begins with the name of a field, with its flag instead.

    A part of gatort that knows no command line says `sequence_frames: expected …`. The user typed
    `--sequence-frames`.
    """
    flags = {(each.keys or (each.field_info.name,))[-1]: each.name for each in arguments}
    # A name without an underline may as well be a folder of the user's.
    fields = "|".join(name for name in flags if "_" in name)
    if not fields or re.match(rf"({fields}): ", sentence) is None:
        return sentence
    return re.sub(rf"\b({fields})\b", lambda found: flags[found[1]], sentence)


def _usage(error: CycloptsError, command: str, known: Sequence[Argument]) -> str:
    """Return the clause on an argument that is unknown, missing or too many."""
    match error:
        case UnknownOptionError(token=token):
            found = token.keyword or token.value
            names = {name for each in known if each.parse for name in each.names}
            return unknown("option", found, sorted(names - {found}))
        case UnusedCliTokensError(unused_tokens=[token, *_]):
            return f"expected no further argument of {command}, found {token!r}"
        case ArgumentOrderError(token=found):
            return f"expected {found!r} before the flags"
        case MissingArgumentError(argument=Argument() as argument):
            return _missing(error, argument)
    return str(error)


def _repeated(flag: str, given: Sequence[str], known: Sequence[Argument]) -> str:
    """Return the sentence on a flag that is given twice, or together with its opposite."""
    names = next((each.names for each in known if flag in each.names), (flag,))
    found = dict.fromkeys(name for each in given if (name := each.partition("=")[0]) in names)
    if len(found) > 1:
        return f"expected {' or '.join(found)}, found both; leave one of them out"
    return f"{flag}: expected once, found twice; leave one of them out"


def _missing(error: MissingArgumentError, argument: Argument) -> str:
    given = error.keyword or next((each.keyword for each in argument.tokens if each.keyword), None)
    number, _ = argument.token_count()
    if given is None:
        is_flag = not argument.field_info.is_positional
        return (
            f"expected {argument.name if is_flag else argument.name.strip('-').upper()}, found none"
        )
    if number > 1:
        found = len(error.tokens_so_far) or "none"
        return f"{given}: expected {counted(number, 'value')}, found {found}"
    return f"{given}: expected a value, found none"


def _conversion(error: CoercionError) -> str:
    """Return the clause on a text that is not of the wanted kind."""
    if error.msg is not None:
        return str(error.msg)
    found = f", found {error.token.value!r}" if error.token is not None else ""
    kind: Any = error.target_type
    if get_origin(kind) is Literal:
        *most, last = map(str, get_args(kind))
        return f"expected {', '.join(most)} or {last}{found}"
    return f"expected {NUMBERS.get(kind, 'named values in JSON')}{found}"


def _refused_value(argument: Argument, details: ErrorDetails) -> str:
    """Return the clause on a value outside its range, with the flag at its place in the report.

    An index into a list of values is skipped.
    """
    keys = tuple(part for part in details["loc"] if isinstance(part, str))
    parts = (argument, *argument.children_recursive)
    flag = next((each.name for each in parts if each.keys == keys), argument.name)
    clause = with_flag(finding(details), parts)
    return clause if clause.startswith("--") else f"{flag}: {clause}"


def _describe_one(
    details: ErrorDetails, kind: type[BaseModel] | None, tables: tuple[str, ...]
) -> str:
    key = ".".join(map(str, details["loc"]))
    if details["type"] == "extra_forbidden":
        others = tables if _may_be_table(details) else ()
        return unknown("key", key, [*_keys(kind, details["loc"][:-1]), *others])
    return f"{key}: {finding(details)}"


def _may_be_table(details: ErrorDetails) -> bool:
    """Return true for a report on an unknown table outside all others."""
    unknown_here = details["type"] == "extra_forbidden" and len(details["loc"]) == 1
    return unknown_here and isinstance(details["input"], dict)


def _valid_keys(kind: type[BaseModel] | None, place: tuple[int | str, ...]) -> str:
    where = f" of {'.'.join(map(str, place))}" if place else ""
    return f"valid keys{where} are {', '.join(_keys(kind, place))}"


def _keys(kind: Any, location: tuple[int | str, ...]) -> list[str]:
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
