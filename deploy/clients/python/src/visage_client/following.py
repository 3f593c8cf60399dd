"""State of a followed training, without I/O, shared by both clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from visage.v1 import training_pb2

from .backoff import Backoff
from .errors import TrainingFailed
from .values.evaluation import Evaluation
from .values.message import convert, enum_name
from .values.training import FINAL_STATES, Epoch, Promotion, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Record:
    """Cursor, valid epochs and outcome of a training."""

    name: str
    backoff: Backoff
    cursor: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    state: str = "QUEUED"
    result: Result | None = None
    failure: TrainingFailed | None = None
    version: training_pb2.ModelVersionCreated | None = None
    test: Evaluation | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in FINAL_STATES

    def request(self, follow: bool = True) -> training_pb2.StreamEpochMetricsRequest:
        """Requests the events after the last accepted one."""
        return training_pb2.StreamEpochMetricsRequest(name=self.name, after_sequence=self.cursor, follow=follow)

    def take(self, event: training_pb2.TrainingEvent) -> bool:
        """Records an event. Returns False for heartbeats and for events that were received before."""
        self.backoff.begin()
        if event.sequence <= self.cursor:
            return False
        self.cursor = event.sequence
        kind = event.WhichOneof("kind")
        if kind == "epoch_completed":
            self.epochs.append(convert(Epoch, event.epoch_completed))
        elif kind == "metrics_rewound":
            self.epochs = [epoch for epoch in self.epochs if epoch.epoch < event.metrics_rewound.from_epoch]
        elif kind == "test_evaluated":
            self.test = convert(Evaluation, event.test_evaluated)
        elif kind == "model_version_created":
            self.version = event.model_version_created
        elif kind == "state_changed":
            self.note_state(event.state_changed)
        return True

    def note_state(self, change: training_pb2.StateChanged) -> None:
        self.state = enum_name(training_pb2.TrainingState.DESCRIPTOR, change.state)
        if self.state == "FAILED":
            self.failure = TrainingFailed(self.name, change.failure.reason, change.failure.message)
        elif self.has_ended:
            version = self.version
            promotion = convert(Promotion, version.promotion) if version and version.HasField("promotion") else None
            self.result = Result(self.state, enum_name(training_pb2.StopReason.DESCRIPTOR, change.stop_reason),
                                 version.model_version if version else None, version.promoted if version else False, self.test, promotion)

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
