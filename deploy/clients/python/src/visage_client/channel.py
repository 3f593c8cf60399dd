"""Channel options: retries by gRPC, detection of dead connections, and message limits."""

from __future__ import annotations

import json
from typing import Any

import grpc

# Responses contain annotated images, which exceed gRPC's default of 4 MiB.
MAX_RESPONSE_BYTES = 256 << 20


def retried(codes: list[str]) -> dict[str, Any]:
    return {"maxAttempts": 5, "initialBackoff": "0.5s", "maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": codes}


# Idempotent calls are retried after UNAVAILABLE; StartTraining is idempotent by its request id.
# Predict also retries a full queue, which drains within seconds, unlike the queue of trainings.
# RegisterVersion is not retried, because it would create a second version.
SERVICE_CONFIG = {"methodConfig": [
    {"name": [{"service": "visage.v1.PredictionService"}], "retryPolicy": retried(["UNAVAILABLE", "RESOURCE_EXHAUSTED"])},
    {"name": [{"service": "visage.v1.ModelService", "method": "RegisterVersion"}]},
    {"name": [{"service": f"visage.v1.{name}Service"} for name in ("Training", "Model", "Dataset", "System")], "retryPolicy": retried(["UNAVAILABLE"])},
]}


def options(more: dict[str, Any]) -> list[tuple[str, Any]]:
    """Options of a channel; those of the caller override the defaults."""
    ours = {
        "grpc.service_config": json.dumps(SERVICE_CONFIG),
        "grpc.enable_retries": 1,
        "grpc.max_receive_message_length": MAX_RESPONSE_BYTES,
        "grpc.max_send_message_length": -1,
        # Detects a vanished machine, also during a stream without events.
        "grpc.keepalive_time_ms": 30_000,
        "grpc.keepalive_timeout_ms": 10_000,
        # gRPC's default delay between connection attempts is up to two minutes.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.min_reconnect_backoff_ms": 1_000,
        "grpc.max_reconnect_backoff_ms": 5_000,
    }
    return list((ours | more).items())


def version_name(version: int | str, model: str) -> str:
    """`models/{model}/versions/{n or alias}` from a number, an alias or a full name."""
    text = str(version)
    return text if "/" in text else f"models/{model}/versions/{text}"


def training_name(training: str) -> str:
    return training if "/" in training else f"trainings/{training}"


def new_channel(target: str, credentials: grpc.ChannelCredentials | None, more: dict[str, Any]) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(target, options=options(more))
    return grpc.secure_channel(target, credentials, options=options(more))
