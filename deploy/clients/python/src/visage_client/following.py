"""What a follower of a training remembers, without input or output, so that both clients follow in the same way."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visage.v1 import training_pb2

from .errors import TrainingFailed, VisageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
FINAL_STATES = {"SUCCEEDED", "FAILED", "CANCELLED"}


@dataclass(frozen=True)
class Result:
    """How a training ended."""

    # SUCCEEDED or CANCELLED; a training that FAILED raises.
    state: str
    # Such as MAX_EPOCHS or EARLY_STOPPED.
    stop_reason: str
    # `models/{model}/versions/{n}`; None without a complete epoch.
    model_version: str | None
    # Whether the version became `live` at once.
    promoted: bool
    # How the version does on the test images; None without any.
    test: training_pb2.Evaluation | None = field(repr=False)


@dataclass
class Backoff:
    """How long to wait between tries, and for how long to try."""

    # Seconds without a word of the server after which it is given up.
    patience: float
    failures: int = 0
    silent_since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """The server has spoken, or is asked for the first time; the time before does not count as silence."""
        self.failures, self.silent_since = 0, time.monotonic()

    def delay_after(self, error: VisageError) -> float:
        """How long to wait before the next try, no shorter than the server asks; raises an error that waiting does not mend."""
        refused = not error.is_of_the_connection and error.retry_delay is None
        if refused or time.monotonic() - self.silent_since > self.patience:
            raise error
        delay: float = min(LONGEST_DELAY, FIRST_DELAY * 2.0**min(self.failures, 10))
        self.failures += 1
        # Clients that lost the same server do not all come back in the same moment.
        return max(error.retry_delay or 0.0, delay * random.uniform(0.5, 1.0))


@dataclass
class Record:
    """The cursor, the epochs that are valid, and the end."""

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
        """Asks for what comes after the last event that was taken."""
        return training_pb2.StreamEpochMetricsRequest(name=self.name, after_sequence=self.cursor)

    def take(self, event: training_pb2.TrainingEvent) -> bool:
        """Notes an event and tells whether it is a new one: heartbeats are not, nor is one that was seen before."""
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
        """The result after the end; raises for a training that failed."""
        if self.failure is not None:
            raise self.failure
        if self.result is None:
            raise RuntimeError(f"{self.name} has not ended")
        return self.result

    def draw(self, figure: Figure) -> None:
        """Losses and error of the valid epochs."""
        figure.clear()
        losses, errors = figure.subplots(1, 2)
        numbers = [epoch.epoch for epoch in self.epochs]
        losses.plot(numbers, [epoch.train_loss for epoch in self.epochs], marker=".", label="training")
        losses.plot(numbers, [epoch.val_loss for epoch in self.epochs], marker=".", label="validation")
        losses.set(title=f"{self.name}: {self.state}", xlabel="epoch", ylabel="loss, square years", yscale="log")
        losses.legend()
        errors.plot(numbers, [epoch.val_mae for epoch in self.epochs], marker=".", color="tab:green")
        errors.set(xlabel="epoch", ylabel="mean absolute error on validation, years")
