"""State of a followed training, without I/O, shared by both clients."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visage.v1 import training_pb2

from .errors import TrainingFailed, VisageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INITIAL_DELAY, MAX_DELAY = 0.1, 5.0
FINAL_STATES = {"SUCCEEDED", "FAILED", "CANCELLED"}


@dataclass(frozen=True)
class Result:
    """Outcome of a training."""

    # SUCCEEDED or CANCELLED; a training that FAILED raises.
    state: str
    # Such as MAX_EPOCHS or EARLY_STOPPED.
    stop_reason: str
    # `models/{model}/versions/{n}`; None without a complete epoch.
    model_version: str | None
    # True if the version became `live` when the training ended.
    promoted: bool
    # Evaluation on the test images; None without test images.
    test: training_pb2.Evaluation | None = field(repr=False)


@dataclass
class Backoff:
    """Delays between attempts, and the time limit of all attempts."""

    # Seconds without contact after which the error is raised.
    patience: float
    failures: int = 0
    silent_since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Restarts the time limit, at the first attempt and after each message of the server."""
        self.failures, self.silent_since = 0, time.monotonic()

    def delay_after(self, error: VisageError) -> float:
        """Returns the delay in seconds before the next attempt, at least the server's retry delay; raises errors that are not retryable."""
        refused = not error.is_of_the_connection and error.retry_delay is None
        if refused or time.monotonic() - self.silent_since > self.patience:
            raise error
        delay: float = min(MAX_DELAY, INITIAL_DELAY * 2.0**min(self.failures, 10))
        self.failures += 1
        # Random, so that the clients of a restarted server do not all reconnect at once.
        return max(error.retry_delay or 0.0, delay * random.uniform(0.5, 1.0))


@dataclass
class Record:
    """Cursor, valid epochs and outcome of a training."""

    name: str
    backoff: Backoff
    cursor: int = 0
    epochs: list[training_pb2.EpochMetrics] = field(default_factory=list)
    state: str = "QUEUED"
    result: Result | None = None
    failure: TrainingFailed | None = None
    version: training_pb2.ModelVersionCreated | None = None
    test: training_pb2.Evaluation | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES

    def request(self) -> training_pb2.StreamEpochMetricsRequest:
        """Requests the events after the last accepted one."""
        return training_pb2.StreamEpochMetricsRequest(name=self.name, after_sequence=self.cursor)

    def take(self, event: training_pb2.TrainingEvent) -> bool:
        """Records an event. Returns False for heartbeats and for events that were received before."""
        self.backoff.begin()
        if event.sequence <= self.cursor:
            return False
        self.cursor = event.sequence
        kind = event.WhichOneof("kind")
        if kind == "epoch_completed":
            self.epochs.append(event.epoch_completed)
        elif kind == "metrics_rewound":
            self.epochs = [epoch for epoch in self.epochs if epoch.epoch < event.metrics_rewound.from_epoch]
        elif kind == "test_evaluated":
            self.test = event.test_evaluated
        elif kind == "model_version_created":
            self.version = event.model_version_created
        elif kind == "state_changed":
            self.note_state(event.state_changed)
        return True

    def note_state(self, change: training_pb2.StateChanged) -> None:
        self.state = training_pb2.TrainingState.Name(change.state).removeprefix("TRAINING_STATE_")
        if self.state == "FAILED":
            self.failure = TrainingFailed(self.name, change.failure.reason, change.failure.message)
        elif self.has_ended:
            version = self.version
            self.result = Result(self.state, training_pb2.StopReason.Name(change.stop_reason).removeprefix("STOP_REASON_"),
                                 version.model_version if version else None, version.promoted if version else False, self.test)

    def outcome(self) -> Result:
        """Returns the result of an ended training; raises TrainingFailed if it failed."""
        if self.failure is not None:
            raise self.failure
        if self.result is None:
            raise RuntimeError(f"{self.name} has not ended")
        return self.result

    def draw(self, figure: Figure) -> None:
        """Plots losses and error of the valid epochs."""
        figure.clear()
        losses, errors = figure.subplots(1, 2)
        numbers = [epoch.epoch for epoch in self.epochs]
        losses.plot(numbers, [epoch.train_loss for epoch in self.epochs], marker=".", label="training")
        losses.plot(numbers, [epoch.val_loss for epoch in self.epochs], marker=".", label="validation")
        losses.set(title=f"{self.name}: {self.state}", xlabel="epoch", ylabel="loss, square years", yscale="log")
        losses.legend()
        errors.plot(numbers, [epoch.val_mae for epoch in self.epochs], marker=".", color="tab:green")
        errors.set(xlabel="epoch", ylabel="mean absolute error on validation, years")
