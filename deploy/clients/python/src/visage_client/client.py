"""The client that blocks."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import grpc

from visage.v1 import (model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc, system_pb2, system_pb2_grpc, training_pb2,
                       training_pb2_grpc)

from . import channel, images, spec, versions
from .errors import InvalidArgument, VisageError, from_rpc, translated
from .following import Backoff, Record, Result
from .images import Options, Picture, Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .images import ImageLike

    OnError = Callable[[Picture, VisageError], None]


class Client:
    """A connection to one server; `with` closes it.

    `patience` is how many seconds a training is followed without a word of the server. `channel_options` are added to those of gRPC's channel.
    """

    def __init__(self, target: str = "localhost:50051", *, credentials: grpc.ChannelCredentials | None = None, patience: float = 300.0,
                 channel_options: dict[str, Any] | None = None) -> None:
        self.patience = patience
        self.channel = channel.new_channel(target, credentials, channel_options or {})
        self.trainings = training_pb2_grpc.TrainingServiceStub(self.channel)
        self._models = model_pb2_grpc.ModelServiceStub(self.channel)
        self._predictions = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        self._system = system_pb2_grpc.SystemServiceStub(self.channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self.channel.close()

    def info(self) -> system_pb2.GetServerInfoResponse:
        """Version, device and limits of the server."""
        with translated():
            info: system_pb2.GetServerInfoResponse = self._system.GetServerInfo(system_pb2.GetServerInfoRequest())
            return info

    def train(self, dataset: str | os.PathLike[str] | Mapping[str, Any], epochs: int | None = None, **fields: Any) -> Training:
        """Starts a training on a folder or manifest of the server and returns at once.

        `fields` are those of TrainingSpec (`batch_size=64`, `init="STARTER"`, `optimizer={"learning_rate": 3e-4}`), and `training_id`, `display_name`,
        `labels` and `request_id`: with a `request_id` of your own, a UUID, a second run of your program finds the training of the first.
        """
        with translated():
            started = self.trainings.StartTraining(spec.start_request(dataset, epochs, fields)).training
        return Training(self, started.name)

    def training(self, name: str) -> Training:
        """A training that was started before, by name or id; its iteration begins with the first epoch."""
        return Training(self, channel.training_name(name))

    @overload
    def predict(self, image: list[ImageLike], **options: Any) -> list[Prediction]: ...

    @overload
    def predict(self, image: ImageLike, **options: Any) -> Prediction: ...

    def predict(self, image: ImageLike | list[ImageLike], **options: Any) -> Prediction | list[Prediction]:
        """Predicts on a file, encoded bytes, a PIL image or a numpy array, or on a list of them; `options` are those of `predict_many`."""
        if isinstance(image, list):
            return list(self.predict_many(image, **options))
        return next(self.predict_many([image], **options))

    def predict_folder(self, folder: str | os.PathLike[str], **options: Any) -> Iterator[Prediction]:
        """Predicts on all images below a folder, by name; `source` says which is which. `options` are those of `predict_many`."""
        return self.predict_many(images.files(folder), **options)

    def predict_many(self, pictures: Iterable[ImageLike], *, version: int | str = "live", model: str = "age", interval_level: float | None = None,
                     annotate: bool = False, parallel: int = 4, on_error: OnError | None = None) -> Iterator[Prediction]:
        """Yields predictions in order, with `parallel` calls under way at once; no more images than theirs are in memory.

        One image that cannot be read fails the iteration, unless `on_error` takes it: then it is left out.
        """
        options = Options(channel.version_name(version, model), annotate, interval_level)
        under_way: deque[tuple[list[Picture], Any]] = deque()
        try:
            for chunk in images.chunks(pictures, self.info().limits, parallel):
                under_way.append((chunk, self._predictions.Predict.future(options.request(chunk))))
                if len(under_way) == parallel:
                    yield from self._received(*under_way.popleft(), options, on_error)
            while under_way:
                yield from self._received(*under_way.popleft(), options, on_error)
        finally:
            for _, call in under_way:
                call.cancel()

    def _received(self, chunk: list[Picture], call: Any, options: Options, on_error: OnError | None) -> list[Prediction]:
        backoff = Backoff(self.patience)
        while True:
            try:
                with translated():
                    answer: prediction_pb2.PredictResponse = call.result()
                    return images.predictions(chunk, answer)
            except InvalidArgument as error:
                if on_error is None:
                    raise
                if len(chunk) == 1:
                    on_error(chunk[0], error)
                    return []
                break
            except VisageError as error:
                # gRPC has tried for some seconds; a server that is away for longer, or whose queue is full, is waited for here.
                time.sleep(backoff.delay_after(error))
                call = self._predictions.Predict.future(options.request(chunk))
        alone = [([picture], self._predictions.Predict.future(options.request([picture]))) for picture in chunk]
        return [one for part, call in alone for one in self._received(part, call, options, on_error)]

    def models(self, model: str = "age") -> list[model_pb2.ModelVersion]:
        """All versions, newest first; `aliases` says which is live."""
        found: list[model_pb2.ModelVersion] = []
        request = versions.listing(model)
        with translated():
            while True:
                page = self._models.ListModelVersions(request)
                found.extend(page.versions)
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token

    def version(self, version: int | str = "live", model: str = "age") -> model_pb2.ModelVersion:
        """One version, by number or alias."""
        with translated():
            found: model_pb2.ModelVersion = self._models.GetModelVersion(versions.one(version, model)).version
            return found

    def promote(self, version: int | str, model: str = "age", alias: str = "live") -> model_pb2.ModelVersion:
        """Makes a version the one that predicts."""
        with translated():
            now: model_pb2.ModelVersion = self._models.SetAlias(versions.promotion(version, model, alias)).version
            return now

    def rollback(self, model: str = "age") -> model_pb2.ModelVersion:
        """Makes the version live that was so before; raises Aborted when somebody else moves `live` in the same moment."""
        live = self.version("live", model).version
        with translated():
            now: model_pb2.ModelVersion = self._models.SetAlias(versions.rollback(model, live)).version
            return now


class Training:
    """A training on the server, followed by a cursor: a connection that is lost, or a server that restarts, leaves no gap and repeats no event.

    Iterating yields epochs (`visage.v1.EpochMetrics`) as they are done, and ends with the training; iterating again goes on where it was left. Where the server
    had to go back to a checkpoint, it makes epochs anew: they are yielded again, with a higher `attempt`, and `epochs` holds those that are valid.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._record = Record(name, Backoff(client.patience))

    def __iter__(self) -> Iterator[training_pb2.EpochMetrics]:
        return (event.epoch_completed for event in self.events() if event.HasField("epoch_completed"))

    def events(self) -> Iterator[training_pb2.TrainingEvent]:
        """Yields everything that happens, in order and each event once."""
        record = self._record
        record.backoff.begin()
        while not record.has_ended:
            stream = self._client.trainings.StreamEpochMetrics(record.request())
            try:
                yield from (response.event for response in stream if record.take(response.event))
            except grpc.RpcError as error:
                time.sleep(record.backoff.delay_after(from_rpc(error)))
            finally:
                stream.cancel()

    @property
    def epochs(self) -> list[training_pb2.EpochMetrics]:
        """The valid epochs that were seen so far."""
        return list(self._record.epochs)

    @property
    def state(self) -> str:
        """The last state that was seen, such as RUNNING."""
        return self._record.state

    @property
    def result(self) -> Result | None:
        """How it ended, with the model version; None before the end was seen. Raises TrainingFailed where it failed."""
        return self._record.outcome() if self._record.has_ended else None

    def wait(self) -> Result:
        """Follows to the end. Raises TrainingFailed where it failed."""
        for _ in self.events():
            pass
        return self._record.outcome()

    def get(self) -> training_pb2.Training:
        """All that the server knows about it now."""
        with translated():
            known: training_pb2.Training = self._client.trainings.GetTraining(training_pb2.GetTrainingRequest(name=self.name)).training
            return known

    def stop(self) -> None:
        """Ends it early with its best checkpoint."""
        with translated():
            self._client.trainings.StopTraining(training_pb2.StopTrainingRequest(name=self.name))

    def pause(self) -> None:
        """Lets go of the device until `resume`."""
        with translated():
            self._client.trainings.PauseTraining(training_pb2.PauseTrainingRequest(name=self.name))

    def resume(self) -> None:
        """Puts it back into the queue; waits as the server asks while it is still pausing."""
        self._record.backoff.begin()
        while True:
            try:
                with translated():
                    self._client.trainings.ResumeTraining(training_pb2.ResumeTrainingRequest(name=self.name))
                return
            except VisageError as error:
                time.sleep(self._record.backoff.delay_after(error))

    def cancel(self, force: bool = False) -> None:
        """Gives it up."""
        with translated():
            self._client.trainings.CancelTraining(training_pb2.CancelTrainingRequest(name=self.name, force=force))

    def plot(self, follow: bool = True) -> Figure:
        """Draws loss and error by epoch; in a notebook the picture moves until the training ends. Needs matplotlib (`visage-client[notebook]`).

        With `follow=False` it draws what was seen so far. What comes back can be saved: `training.plot().savefig("curves.png")`.
        """
        from .plotting import Board

        board = Board(self._record)
        if follow:
            for _ in self:
                board.redraw()
        return board.redraw()
