"""Operations on one training."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from visage.v1 import training_pb2

from ..backoff import Backoff
from ..errors import MissingDependency, VisageError
from ..following import Record
from ..requests import message
from ..session import Session, call, paged
from ..steps import Emit, Items, Read, Sleep, Steps
from ..values.message import convert
from ..values.training import Checkpoint, Epoch, Result, TrainingInfo
from . import training as trainings
from .download import download as download_file

if TYPE_CHECKING:
    from ..plotting import Board

T = TypeVar("T")


class Followed:
    """A training as its events show it."""

    def __init__(self, session: Session, name: str) -> None:
        self.name = name
        self.session = session
        # Everything that was handed to the caller, whose cursor is that of the iteration.
        self.followed = Record(name, Backoff(session.patience))
        # Everything that `refresh` has read, without moving that cursor.
        self.refreshed = Record(name, Backoff(session.patience))

    @property
    def latest(self) -> Record:
        return max(self.followed, self.refreshed, key=lambda record: record.cursor)

    def __str__(self) -> str:
        record = self.latest
        parts = [record.state] if record.cursor else []
        if record.epochs:
            best = min(record.epochs, key=lambda epoch: epoch.val_mae)
            parts.append(f"{len(record.epochs)} epochs, best validation MAE {best.val_mae:.2f}")
        if record.result is not None and record.result.model_version:
            parts.append(record.result.model_version)
        return ", ".join([self.name, *parts])


def events(training: Followed) -> Items[training_pb2.TrainingEvent]:
    """Yields all events in order, each once; raises Unavailable after `patience` seconds without contact.

    The events are messages of the API (`visage.v1.training_pb2.TrainingEvent`). A later iteration continues after the
    last event of an earlier one.
    """
    return _events(training, training.followed, lambda event: event)


def epochs(training: Followed) -> Items[Epoch]:
    """Yields the epochs as they are completed, until the training ends."""
    return _events(training, training.followed, lambda event: convert(Epoch, event.epoch_completed) if event.HasField("epoch_completed") else None)


def wait(training: Followed) -> Steps[Result]:
    """Follows the training to its end and returns its result. Raises TrainingFailed if it failed."""
    nothing: Any = _events(training, training.followed, lambda event: None)
    yield from nothing
    return training.followed.outcome()


def refresh(training: Followed) -> Steps[None]:
    """Reads the events up to now, so that `state`, `epochs` and `result` are current. Does not affect an iteration."""
    if not training.latest.has_ended:
        nothing: Any = _events(training, training.refreshed, lambda event: None, follow=False)
        yield from nothing


def get(training: Followed) -> Steps[TrainingInfo]:
    """Returns the current state, spec and metrics of the training."""
    return (yield from trainings.get(training.session, training.name))


def stop(training: Followed) -> Steps[None]:
    """Stops it early and keeps its best checkpoint; raises FailedPrecondition if it has ended."""
    yield from _call(training, "StopTraining", training_pb2.StopTrainingRequest(name=training.name))


def pause(training: Followed) -> Steps[None]:
    """Releases the device until `resume`; the training keeps its progress."""
    yield from _call(training, "PauseTraining", training_pb2.PauseTrainingRequest(name=training.name))


def resume(training: Followed) -> Steps[None]:
    """Puts it back into the queue; waits while it is still pausing."""
    backoff = Backoff(training.session.patience)
    while True:
        try:
            yield from _call(training, "ResumeTraining", training_pb2.ResumeTrainingRequest(name=training.name))
            return
        except VisageError as error:
            yield Sleep(training.session.delay_after(error, backoff))


def cancel(training: Followed, force: bool = False) -> Steps[None]:
    """Discards it. `force` kills its process instead of stopping it."""
    yield from _call(training, "CancelTraining", training_pb2.CancelTrainingRequest(name=training.name, force=force))


def update(training: Followed, *, epochs: int | None = None, patience: int | None = None, learning_rate: float | None = None) -> Steps[TrainingInfo]:
    """Changes a training that has not ended, from its next epoch on; None leaves a value unchanged.

    Args:
        epochs: Maximum number of epochs, 1 to 10,000.
        patience: Validations without improvement before it stops early; 0 disables early stopping.
        learning_rate: Above 0.
    """
    fields = {"name": training.name, "epochs": epochs, "patience": patience, "learning_rate": learning_rate}
    request = message(training_pb2.UpdateTrainingRequest, fields, trainings.ALIASES)
    return convert(TrainingInfo, (yield from _call(training, "UpdateTraining", request)).training)


def delete(training: Followed) -> Steps[None]:
    """Deletes an ended training with its events and the checkpoints that no version uses.

    Raises FailedPrecondition if it has not ended.
    """
    request = training_pb2.DeleteTrainingRequest(name=training.name)
    yield from call(training.session, training.session.training_stub.DeleteTraining, request, is_repeatable=False)


def checkpoints(training: Followed) -> Steps[list[Checkpoint]]:
    """Returns the stored checkpoints, newest first."""
    request = training_pb2.ListCheckpointsRequest(parent=training.name)
    found = yield from paged(training.session, training.session.training_stub.ListCheckpoints, request, "checkpoints")
    return [convert(Checkpoint, one) for one in found]


def download(training: Followed, path: str | os.PathLike[str], epoch: int | str = "best", file: str = "model.safetensors") -> Steps[None]:
    """Writes a file of a checkpoint of this epoch to `path`, after its SHA-256 was verified."""
    request = training_pb2.DownloadCheckpointRequest(name=f"{training.name}/checkpoints/{epoch}", file=file)
    yield from download_file(training.session, training.session.training_stub.DownloadCheckpoint, request, path)


def board() -> Board:
    """A plot of a training; raises MissingDependency without matplotlib."""
    try:
        from ..plotting import Board
    except ImportError as error:
        raise MissingDependency("plotting a training", "matplotlib", "notebook") from error
    return Board()


def _call(training: Followed, method: str, request: Any) -> Steps[Any]:
    return (yield from call(training.session, getattr(training.session.training_stub, method), request))


def _events(training: Followed, record: Record, select: Callable[[training_pb2.TrainingEvent], T | None], follow: bool = True) -> Items[T]:
    """Records the events after the cursor, and yields what `select` returns for them.

    Ends with the training, or at the latest event without `follow`. A lost connection is restored without a gap.
    """
    session = training.session
    record.backoff.begin()
    while not record.has_ended:
        stream = session.training_stub.StreamEpochMetrics(record.request(follow))
        try:
            while (response := (yield Read(stream))) is not None:
                session.note_contact()
                if record.take(response.event) and (item := select(response.event)) is not None:
                    yield Emit(item)
            return
        except VisageError as error:
            yield Sleep(session.delay_after(error, record.backoff))
        finally:
            stream.cancel()
