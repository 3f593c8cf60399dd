"""Messages of requests from keyword arguments in short form.

Enums are names without prefix (`recipe="BEST"`), durations are seconds, nested messages are mappings. A value that
a message cannot hold raises InvalidArgument with all violations, as the server does for values out of range.
"""

from __future__ import annotations

import datetime
import operator
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message

from . import keywords
from .errors import FieldViolation, invalid
from .values.message import enum_prefix

M = TypeVar("M", bound=Message)

# Ranges of the server for integers whose type has a wider range, for the errors of negative values.
RANGES = {
    "batch_size": (1, 4096), "input_size": (32, 1024), "max_epochs": (1, 10_000), "max_listed": (0, 1000), "near_distance": (0, 40),
    "plateau_patience": (0, 10_000),
}
# The C++ names of the integer types, and their ranges.
INTEGERS = {"int32": (-2**31, 2**31 - 1), "int64": (-2**63, 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1)}
CPP_TYPES = {1: "int32", 2: "int64", 3: "uint32", 4: "uint64", 5: "float", 6: "float", 7: "bool", 8: "enum", 9: "string", 10: "message"}
BYTES = 12


class Unfit(Exception):
    """A value that the field cannot hold; the text completes a sentence that starts with the name of the field."""


def message(kind: type[M], fields: Mapping[str, Any], aliases: Mapping[str, str] | None = None) -> M:
    """A message from its fields; None leaves a field unset. `aliases` are further names of fields.

    Raises InvalidArgument with all violations.
    """
    violations: list[FieldViolation] = []
    filled = fill(kind(), fields, aliases or {}, "", violations)
    if violations:
        raise invalid(violations)
    return filled


def fill(target: M, fields: Mapping[str, Any], aliases: Mapping[str, str], prefix: str, violations: list[FieldViolation]) -> M:
    known = target.DESCRIPTOR.fields_by_name
    for name, value in fields.items():
        field = known.get(aliases.get(name, name))
        if field is None:
            violations.append(FieldViolation(prefix + name, f"is not a field of {target.DESCRIPTOR.name}{keywords.suggestion(name, sorted(known))}"))
        elif value is not None:
            try:
                set_field(target, field, value, f"{prefix}{name}", violations)
            except Unfit as error:
                violations.append(FieldViolation(prefix + name, str(error)))
    return target


def set_field(target: Message, field: Any, value: Any, path: str, violations: list[FieldViolation]) -> None:
    if field.is_repeated:
        items = getattr(target, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            items.update(texts(value))
            return
        if not isinstance(value, (list, tuple)):
            raise Unfit(f"must be a list, got {value!r}")
        for index, one in enumerate(value):
            if field.message_type is None:
                items.append(scalar(field, one))
            else:
                fill(items.add(), mapping(one), {}, f"{path}[{index}].", violations)
    elif field.message_type is None:
        setattr(target, field.name, scalar(field, value))
    elif isinstance(value, Message) and value.DESCRIPTOR.full_name == field.message_type.full_name:
        getattr(target, field.name).CopyFrom(value)
    elif field.message_type.full_name == "google.protobuf.Duration":
        getattr(target, field.name).FromTimedelta(duration(value))
    else:
        nested = getattr(target, field.name)
        nested.SetInParent()
        fill(nested, mapping(value), {}, f"{path}.", violations)


def mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise Unfit(f"must be a mapping of fields such as {{\"name\": value}}, got {value!r}")


def texts(value: Any) -> dict[str, str]:
    found = mapping(value)
    if all(isinstance(text, str) for pair in found.items() for text in pair):
        return dict(found)
    raise Unfit(f"must have texts as keys and values, got {dict(found)!r}")


def duration(value: Any) -> datetime.timedelta:
    if isinstance(value, datetime.timedelta):
        return value
    try:
        return datetime.timedelta(seconds=number(value))
    except (Unfit, OverflowError, ValueError):
        raise Unfit(f"must be a number of seconds or a timedelta, got {value!r}") from None


def scalar(field: Any, value: Any) -> Any:
    kind = "bytes" if field.type == BYTES else CPP_TYPES[field.cpp_type]
    if kind in INTEGERS:
        return integer(value, *RANGES.get(field.name, INTEGERS[kind]), *INTEGERS[kind])
    if kind == "float":
        return number(value)
    if kind == "enum":
        return enum_value(field.enum_type, value)
    if kind == "string" and isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    if kind == "bool" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if kind == "bytes" and isinstance(value, bytes):
        return value
    names = {"bool": "True or False", "string": "a text", "bytes": "bytes"}
    raise Unfit(f"must be {names[kind]}, got {value!r}")


def integer(value: Any, low: int, high: int, lowest: int, highest: int) -> int:
    """The value if the message can hold it; `low` and `high` are the range of the server, which checks it."""
    try:
        if not isinstance(value, bool) and lowest <= (whole := operator.index(value)) <= highest:
            return whole
    except TypeError:
        pass
    raise Unfit(f"must be an integer from {low} to {high}, got {value!r}")


def number(value: Any) -> float:
    try:
        if not isinstance(value, (bool, str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise Unfit(f"must be a number, got {value!r}")


def enum_value(enum: Any, value: Any) -> int:
    prefix = enum_prefix(enum)
    if isinstance(value, str):
        name = value.upper()
        known = enum.values_by_name.get(name if name.startswith(prefix) else prefix + name)
        if known is not None:
            return int(known.number)
    elif isinstance(value, int) and value in enum.values_by_number:
        return value
    names = [name.removeprefix(prefix) for name, one in enum.values_by_name.items() if one.number != 0]
    raise Unfit(f"must be one of {', '.join(names)}, got {value!r}")
