"""A TrainingSpec from keyword arguments in short form: `init="STARTER"`, `optimizer={"learning_rate": 1e-4}`."""

from __future__ import annotations

import datetime
import os
import uuid
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from visage.v1 import training_pb2


def start_request(dataset: str | os.PathLike[str] | Mapping[str, Any], epochs: int | None, fields: dict[str, Any]) -> training_pb2.StartTrainingRequest:
    """The request of `Client.train`. Its `request_id` makes the call idempotent, so it can be retried."""
    beside = {name: fields.pop(name) for name in ("request_id", "training_id", "display_name", "labels") if name in fields}
    beside.setdefault("request_id", str(uuid.uuid4()))
    if epochs is not None:
        fields["max_epochs"] = epochs
    if isinstance(fields.get("init"), str):
        fields["init"] = initial_weights(fields["init"])
    fields["dataset"] = {"path": os.fspath(dataset)} if isinstance(dataset, (str, os.PathLike)) else dataset
    spec = json_format.ParseDict(as_json(training_pb2.TrainingSpec.DESCRIPTOR, fields), training_pb2.TrainingSpec())
    return training_pb2.StartTrainingRequest(spec=spec, **beside)


def initial_weights(text: str) -> dict[str, str]:
    """A kind of weights by its name, otherwise a file on the server's disk."""
    names = [name.removeprefix("INIT_KIND_") for name in training_pb2.InitKind.keys()]
    return {"kind": text} if text in names else {"kind": "PATH", "path": text}


def as_json(message: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields in the API's JSON form. Raises TypeError for a name that the message type does not have."""
    unknown = [name for name in fields if name not in message.fields_by_name]
    if unknown:
        raise TypeError(f"{message.name} has no field {unknown[0]!r}; it has {', '.join(sorted(message.fields_by_name))}")
    return {name: field_as_json(message.fields_by_name[name], value) for name, value in fields.items() if value is not None}


def field_as_json(field: Any, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [field_as_json(field, one) for one in value]
    if field.enum_type is not None and isinstance(value, str):
        # The name of the zero value, RECIPE_UNSPECIFIED, gives the prefix that short names omit.
        prefix = field.enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
        full = value if value.startswith(prefix) else prefix + value
        if full not in field.enum_type.values_by_name:
            names = [name.removeprefix(prefix) for name in field.enum_type.values_by_name]
            raise ValueError(f"{field.name} must be one of {', '.join(names[1:])}, got {value!r}")
        return full
    if field.message_type is None:
        return value
    if isinstance(value, Message):
        return json_format.MessageToDict(value, preserving_proto_field_name=True)
    if field.message_type.full_name == "google.protobuf.Duration":
        seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
        return f"{seconds:.9f}s" if isinstance(seconds, (int, float)) else seconds
    return as_json(field.message_type, value)
