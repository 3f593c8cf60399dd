"""Trainings, their epochs and results."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .dataset import DatasetReport
from .evaluation import Evaluation
from .message import Value

if TYPE_CHECKING:
    from visage.v1 import training_pb2

FINAL_STATES = {"SUCCEEDED", "FAILED", "CANCELLED"}


@dataclass(frozen=True, repr=False)
class Epoch(Value, message="EpochMetrics"):
    """Metrics of one completed epoch. Losses are in squared years, errors in years."""

    # From 1; 0 for the validation of the initial weights, which has no training metrics.
    epoch: int
    max_epochs: int
    # Start of the process that measured the epoch, from 1.
    attempt: int
    train_loss: float
    val_loss: float
    train_mae: float
    val_mae: float
    val_rmse: float
    is_best: bool
    learning_rate: float
    # Training images per second, without validation.
    images_per_second: float
    train_images: int = field(repr=False)
    val_images: int = field(repr=False)
    # Images that could not be decoded.
    skipped_images: int = field(repr=False)
    # Estimated seconds of the remaining epochs; None on the last.
    eta: float | None


@dataclass(frozen=True, repr=False)
class Promotion(Value, message="Promotion"):
    """Decision whether a new version becomes `live`."""

    promoted: bool
    # One sentence.
    reason: str
    # Live version before the decision; empty without one.
    live_version: str
    # Mean squared errors of both versions on the same `images`, in squared years; 0 without a
    # comparison.
    mse: float
    live_mse: float
    images: int
    # Images that are excluded because one of the versions was trained on them.
    excluded_images: int


@dataclass(frozen=True, repr=False)
class Failure(Value, message="Failure"):
    """Reason of a failed training: stable, such as `TOO_MANY_REJECTS`, and as a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, repr=False)
class TrainingProgress(Value, message="Progress"):
    """Progress of the current epoch."""

    # From 1; 0 while the training prepares.
    epoch: int
    max_epochs: int
    step: int
    steps: int
    phase: str
    # Completed share of the whole training, 0 to 1.
    fraction: float
    # Estimated remaining seconds; None while unknown.
    eta: float | None


@dataclass(frozen=True, repr=False)
class Result(Value):
    """Outcome of a training."""

    # SUCCEEDED or CANCELLED; a training that FAILED raises.
    state: str
    # Such as MAX_EPOCHS or EARLY_STOPPED.
    stop_reason: str
    # `models/{model}/versions/{n}`; None without a complete epoch or with `create_version=False`.
    model_version: str | None
    # True if the version became `live` when the training ended.
    promoted: bool
    # Metrics on the test images; None without test images.
    test: Evaluation | None = None
    # Decision about `live`; None without a version.
    promotion: Promotion | None = None


@dataclass(frozen=True, repr=False)
class TrainingInfo(Value, message="Training"):
    """State of a training at one moment."""

    # `trainings/{id}`.
    name: str
    display_name: str
    # QUEUED, PREPARING, RUNNING, PAUSING, PAUSED, STOPPING, CANCELLING, SUCCEEDED, FAILED or
    # CANCELLED.
    state: str
    # Such as MAX_EPOCHS; empty before the end.
    stop_reason: str
    failure: Failure | None
    # Epoch with the lowest monitored metric; None before the first.
    best: Epoch | None
    last: Epoch | None
    # Validation of the initial weights, if they predict ages.
    initial: Epoch | None
    progress: TrainingProgress | None
    # 1 is the next to run, 0 is not queued.
    queue_position: int
    # None before the dataset is scanned.
    dataset: DatasetReport | None
    test: Evaluation | None
    # `models/{model}/versions/{n}`; empty without one.
    model_version: str
    promotion: Promotion | None
    labels: dict[str, str]
    # Starts of the process.
    attempt: int
    # Disk space in bytes that `Training.delete` frees.
    checkpoint_bytes: int
    # Identity that started the training, which may change it; empty without authentication.
    owner: str
    # Spec as requested, and with all defaults resolved, as messages of the API.
    spec: training_pb2.TrainingSpec
    resolved_spec: training_pb2.TrainingSpec
    create_time: datetime.datetime
    start_time: datetime.datetime | None
    end_time: datetime.datetime | None

    def __repr__(self) -> str:
        best = f"epoch {self.best.epoch} with validation MAE {self.best.val_mae:.2f}" if self.best else None
        failure = f"{self.failure.reason}: {self.failure.message}" if self.failure else None
        parts = [self.name, self.state, failure, best, self.model_version, self.labels]
        return f"TrainingInfo({', '.join(str(part) for part in parts if part)})"

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES

    @property
    def duration(self) -> float | None:
        """Seconds from the first start of the process to the end, or until now; None before the start."""
        if self.start_time is None:
            return None
        return ((self.end_time or datetime.datetime.now(datetime.timezone.utc)) - self.start_time).total_seconds()


@dataclass(frozen=True, repr=False)
class Checkpoint(Value, message="Checkpoint"):
    """Stored weights of an epoch."""

    # `trainings/{id}/checkpoints/{epoch}`.
    name: str
    epoch: int
    best: bool
    # Squared years and years.
    val_loss: float
    val_mae: float
    create_time: datetime.datetime


@dataclass(frozen=True, repr=False)
class Estimate(Value, message="Estimate"):
    """Resources that a training needs."""

    memory_bytes: int
    disk_bytes: int
    steps_per_epoch: int
    # Seconds; None before the first training of the server.
    duration: float | None
