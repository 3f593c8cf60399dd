"""How calls travel: which are retried by gRPC itself, how a connection that is gone is noticed, and how large an answer may be."""

from __future__ import annotations

import json
from typing import Any

import grpc

# Answers carry annotated pictures, which gRPC's default of 4 MiB is too small for.
MOST_ANSWER_BYTES = 256 << 20


def retried(codes: list[str]) -> dict[str, Any]:
    return {"maxAttempts": 5, "initialBackoff": "0.5s", "maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": codes}


# Whatever reads, pauses, stops or sets may be repeated after UNAVAILABLE, StartTraining too, since it carries a request id. Predict changes nothing, so that
# a full queue is waited for as well; a full queue of trainings is no matter of seconds. RegisterVersion would make a second version.
SERVICE_CONFIG = {"methodConfig": [
    {"name": [{"service": "visage.v1.PredictionService"}], "retryPolicy": retried(["UNAVAILABLE", "RESOURCE_EXHAUSTED"])},
    {"name": [{"service": "visage.v1.ModelService", "method": "RegisterVersion"}]},
    {"name": [{"service": f"visage.v1.{name}Service"} for name in ("Training", "Model", "Dataset", "System")], "retryPolicy": retried(["UNAVAILABLE"])},
]}


def options(more: dict[str, Any]) -> list[tuple[str, Any]]:
    """Options of a channel; `more` wins."""
    ours = {
        "grpc.service_config": json.dumps(SERVICE_CONFIG),
        "grpc.enable_retries": 1,
        "grpc.max_receive_message_length": MOST_ANSWER_BYTES,
        "grpc.max_send_message_length": -1,
        # A machine that vanishes says no goodbye; a stream of events may be silent for long.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        # gRPC itself waits up to two minutes between two tries to connect.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.min_reconnect_backoff_ms": 1_000,
        "grpc.max_reconnect_backoff_ms": 5_000,
    }
    return list((ours | more).items())


def version_name(version: int | str, model: str) -> str:
    """`models/{model}/versions/{n or alias}` of a number, an alias or a whole name."""
    text = str(version)
    return text if "/" in text else f"models/{model}/versions/{text}"


def training_name(training: str) -> str:
    return training if "/" in training else f"trainings/{training}"


def new_channel(target: str, credentials: grpc.ChannelCredentials | None, more: dict[str, Any]) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(target, options=options(more))
    return grpc.secure_channel(target, credentials, options=options(more))
