"""Information about the server."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

from .message import Value


@dataclass(frozen=True, repr=False)
class Limits(Value, message="Limits"):
    """Limits on requests: sizes in bytes, and counts."""

    max_message_bytes: int
    max_image_bytes: int
    max_image_pixels: int
    max_images_per_request: int
    max_queued_images: int
    max_queued_trainings: int
    # 0 if uploads are disabled.
    max_upload_bytes: int


@dataclass(frozen=True, repr=False)
class DiskUse(Value, message="DiskUse"):
    """Disk space in bytes."""

    free_bytes: int
    # Checkpoints and versions.
    artifacts_bytes: int
    datasets_bytes: int
    uploads_bytes: int


@dataclass(frozen=True, repr=False)
class ServerInfo(Value, message="GetServerInfoResponse"):
    """Version, device, limits and disk use of a server."""

    version: str
    libtorch_version: str
    # `cpu` or `cuda:0`.
    device: str
    threads: int
    # `models/{model}/versions/{n}`; empty without a live version.
    live_model: str
    http_port: int
    limits: Limits = field(repr=False)
    disk: DiskUse | None = field(repr=False)
    features: tuple[str, ...] = field(repr=False)
    # Directories from which datasets and weights may be read.
    data_roots: tuple[str, ...] = field(repr=False)
    weights_roots: tuple[str, ...] = field(repr=False)
    start_time: datetime.datetime
