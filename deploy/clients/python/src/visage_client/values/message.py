"""Conversion of the API's messages to immutable objects with a short `repr`."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, ClassVar, TypeVar

T = TypeVar("T", bound="Value")
# Classes by the full name of their message.
CLASSES: dict[str, type[Value]] = {}


class Value:
    """Base of the classes that represent a message.

    A subclass is a frozen dataclass whose fields have the names of the message's fields. An unset optional
    field or message is None; durations are seconds, enums their names without prefix, lists tuples.
    """

    MESSAGE: ClassVar[str] = ""

    def __init_subclass__(cls, message: str = "") -> None:
        super().__init_subclass__()
        if message:
            cls.MESSAGE = f"visage.v1.{message}"
            CLASSES[cls.MESSAGE] = cls

    def __repr__(self) -> str:
        """Fields with a value, numbers with four digits. Binary and long fields are left out."""
        shown = []
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.repr and value is not None and value not in ("", (), {}):
                shown.append(f"{field.name}={brief(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return repr(value)


def convert(cls: type[T], message: Any, **more: Any) -> T:
    """An object of the class from a message; `more` are fields that the message does not have."""
    fields = message.DESCRIPTOR.fields_by_name
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in fields and field.name not in more:
            more[field.name] = converted(message, fields[field.name])
    return cls(**more)


def converted(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return tuple(single(field, one) for one in value)
    if field.has_presence and not message.HasField(field.name):
        return None
    return single(field, value)


def single(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    if field.message_type is None:
        return value if value != b"" else None
    name = field.message_type.full_name
    if name == "google.protobuf.Timestamp":
        return value.ToDatetime(tzinfo=datetime.timezone.utc)
    if name == "google.protobuf.Duration":
        return value.ToTimedelta().total_seconds()
    return convert(CLASSES[name], value) if name in CLASSES else value


def enum_prefix(enum: Any) -> str:
    """Prefix of the names of an enum's values, which short names omit: that of its zero value."""
    return str(enum.values_by_number[0].name.removesuffix("UNSPECIFIED"))


def enum_name(enum: Any, number: int) -> str:
    """Name of an enum's value without prefix; empty if unspecified, the number if it is newer than this package."""
    if number == 0:
        return ""
    known = enum.values_by_number.get(number)
    return str(number) if known is None else known.name.removeprefix(enum_prefix(enum))
