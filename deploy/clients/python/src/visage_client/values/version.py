"""Model versions and their aliases."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .evaluation import Evaluation
from .message import Value
from .training import Epoch

if TYPE_CHECKING:
    from visage.v1 import training_pb2


@dataclass(frozen=True, repr=False)
class File(Value, message="CheckpointFile"):
    """A file of a version or checkpoint."""

    # Such as `model.safetensors` or `manifest.json`.
    name: str
    size_bytes: int
    # Hex.
    sha256: str = field(repr=False)


@dataclass(frozen=True, repr=False)
class ModelVersion(Value, message="ModelVersion"):
    """A model version: immutable weights and their provenance."""

    # `models/{model}/versions/{n}`.
    name: str
    # Number n, from 1.
    version: int
    # Aliases that point to it, such as `live`.
    aliases: tuple[str, ...]
    # TRAINING or STARTER.
    origin: str
    # Checkpoint that it was created from; empty unless it is of a training of this server.
    checkpoint: str
    # Metrics of its epoch, on the validation images of its training.
    metrics: Epoch | None = field(repr=False)
    # Metrics on the test images of its training.
    test: Evaluation | None = field(repr=False)
    # Versions with equal digests were validated on the same images.
    val_digest: str = field(repr=False)
    dataset_digest: str = field(repr=False)
    # Side of the network input in pixels.
    input_size: int
    files: tuple[File, ...] = field(repr=False)
    # True if evaluations report `trained_on_images`.
    training_images_recorded: bool = field(repr=False)
    # Spec of the training, as a message of the API.
    spec: training_pb2.TrainingSpec | None = field(repr=False)
    create_time: datetime.datetime

    @property
    def size_bytes(self) -> int:
        """Disk space of all files in bytes."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, repr=False)
class AliasEvent(Value, message="AliasEvent"):
    """A change of an alias; version 0 means that it was not set."""

    alias: str
    from_version: int
    to_version: int
    # `promote`, `set`, `delete` or `starter`.
    cause: str
    event_time: datetime.datetime
