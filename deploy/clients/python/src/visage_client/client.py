"""The blocking client."""

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
from .images import EncodedImage, Options, Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .images import ImageLike

    OnError = Callable[[EncodedImage, VisageError], None]


class Client:
    """A connection to one server, closed by `with` or `close`.

    Args:
        target: Address of the gRPC port, `host:port`.
        credentials: TLS credentials; None connects without encryption.
        patience: Seconds without contact after which a followed training or a repeated call fails.
        channel_options: Further options of the gRPC channel; they override the defaults.
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
        """Cancels all calls and closes the connection."""
        self.channel.close()

    def info(self) -> system_pb2.GetServerInfoResponse:
        """Returns version, device and limits of the server."""
        with translated():
            info: system_pb2.GetServerInfoResponse = self._system.GetServerInfo(system_pb2.GetServerInfoRequest())
            return info

    def train(self, dataset: str | os.PathLike[str] | Mapping[str, Any], epochs: int | None = None, **fields: Any) -> Training:
        """Starts a training and returns without waiting for it.

        Args:
            dataset: Directory or manifest on the server's disk, or fields of DatasetSpec such as
                `{"name": "datasets/faces"}`.
            epochs: Maximum number of epochs, 1 to 10000; None uses the default of the recipe.
            **fields: Fields of TrainingSpec, such as `batch_size=64`, `init="STARTER"` or
                `optimizer={"learning_rate": 3e-4}`; and `training_id`, `display_name`, `labels` and `request_id`.
                Repeating a call with the same `request_id`, a UUID, returns the first training.

        Raises:
            InvalidArgument: Fields are invalid; `violations` lists all of them.
            AlreadyExists: The `training_id` is taken.
            ResourceExhausted: The queue of trainings is full.
            TypeError: The spec has no field of this name.
        """
        with translated():
            started = self.trainings.StartTraining(spec.start_request(dataset, epochs, fields)).training
        return Training(self, started.name)

    def training(self, name: str) -> Training:
        """Returns an existing training by name or id. Its iteration starts with the first epoch."""
        return Training(self, channel.training_name(name))

    @overload
    def predict(self, image: list[ImageLike], **options: Any) -> list[Prediction]: ...

    @overload
    def predict(self, image: ImageLike, **options: Any) -> Prediction: ...

    def predict(self, image: ImageLike | list[ImageLike], **options: Any) -> Prediction | list[Prediction]:
        """Predicts the age on one image or a list of images.

        Args:
            image: A path, the bytes of a JPEG, PNG, WebP or BMP file, a PIL image, or a numpy array of uint8
                with the shape [height, width] (grey) or [height, width, 3 or 4] (RGB or RGBA).
            **options: The keyword arguments of `predict_many`.

        Returns:
            A `Prediction` for one image, a list of them in the same order for a list.

        Raises:
            InvalidArgument: An image cannot be decoded or exceeds a limit of the server.
            FailedPrecondition: No version is live.
            TypeError: The object is not an image, or Pillow is needed to encode it.
        """
        if isinstance(image, list):
            return list(self.predict_many(image, **options))
        return next(self.predict_many([image], **options))

    def predict_folder(self, folder: str | os.PathLike[str], **options: Any) -> Iterator[Prediction]:
        """Predicts on all images below a directory, sorted by path, which is the `source` of each prediction.

        `options` are those of `predict_many`.
        """
        return self.predict_many(images.files(folder), **options)

    def predict_many(self, pictures: Iterable[ImageLike], *, version: int | str = "live", model: str = "age", interval_level: float | None = None,
                     annotate: bool = False, parallel: int = 4, on_error: OnError | None = None) -> Iterator[Prediction]:
        """Predicts the ages on any number of images and yields the predictions in order.

        Images are read on demand; the memory holds those of `parallel` calls at most.

        Args:
            pictures: Images as for `predict`.
            version: Number or alias of the model version.
            model: Name of the model.
            interval_level: Confidence level of the intervals, above 0 and below 1, rounded up to one that the
                version supports; 0.9 if None.
            annotate: Also return the image with the age drawn on it, as PNG in `annotated_png`.
            parallel: Concurrent calls, at least 1.
            on_error: Called with an image that the server refuses and the error; the image has no prediction.
                Without it the error is raised.

        Raises:
            InvalidArgument: An image cannot be decoded, and `on_error` is None.
            Unavailable: The server did not respond for `patience` seconds.
        """
        options = Options(channel.version_name(version, model), annotate, interval_level)
        in_flight: deque[tuple[list[EncodedImage], Any]] = deque()
        try:
            for chunk in images.chunks(pictures, self.info().limits, parallel):
                in_flight.append((chunk, self._predictions.Predict.future(options.request(chunk))))
                if len(in_flight) == parallel:
                    yield from self._received(*in_flight.popleft(), options, on_error)
            while in_flight:
                yield from self._received(*in_flight.popleft(), options, on_error)
        finally:
            for _, call in in_flight:
                call.cancel()

    def _received(self, chunk: list[EncodedImage], call: Any, options: Options, on_error: OnError | None) -> list[Prediction]:
        backoff = Backoff(self.patience)
        while True:
            try:
                with translated():
                    response: prediction_pb2.PredictResponse = call.result()
                    return images.predictions(chunk, response)
            except InvalidArgument as error:
                if on_error is None:
                    raise
                if len(chunk) == 1:
                    on_error(chunk[0], error)
                    return []
                break
            except VisageError as error:
                # gRPC has retried for some seconds. Longer outages and full queues are retried
                # here.
                time.sleep(backoff.delay_after(error))
                call = self._predictions.Predict.future(options.request(chunk))
        alone = [([image], self._predictions.Predict.future(options.request([image]))) for image in chunk]
        return [one for part, call in alone for one in self._received(part, call, options, on_error)]

    def models(self, model: str = "age") -> list[model_pb2.ModelVersion]:
        """Returns all versions, newest first; the live one has 'live' in `aliases`."""
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
        """Returns one version by number or alias; raises NotFound if it does not exist."""
        with translated():
            found: model_pb2.ModelVersion = self._models.GetModelVersion(versions.one(version, model)).version
            return found

    def promote(self, version: int | str, model: str = "age", alias: str = "live") -> model_pb2.ModelVersion:
        """Points an alias to a version, given by number or alias. The alias `live` is the default of predictions."""
        with translated():
            now: model_pb2.ModelVersion = self._models.SetAlias(versions.promotion(version, model, alias)).version
            return now

    def rollback(self, model: str = "age") -> model_pb2.ModelVersion:
        """Makes the previous live version live again; raises Aborted if another client moves `live` meanwhile."""
        live = self.version("live", model).version
        with translated():
            now: model_pb2.ModelVersion = self._models.SetAlias(versions.rollback(model, live)).version
            return now


class Training:
    """A training on the server, followed by a cursor.

    A lost connection or a restarted server neither skips nor repeats an event. Iterating yields completed
    epochs (`visage.v1.training_pb2.EpochMetrics`) until the training ends; iterating again continues after the
    last one. If the server returns to an earlier checkpoint, it repeats epochs: they are yielded again with a
    higher `attempt`, and `epochs` holds the valid ones.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.name = name
        self._client = client
        self._record = Record(name, Backoff(client.patience))

    def __iter__(self) -> Iterator[training_pb2.EpochMetrics]:
        return (event.epoch_completed for event in self.events() if event.HasField("epoch_completed"))

    def events(self) -> Iterator[training_pb2.TrainingEvent]:
        """Yields all events in order, each once; raises Unavailable after `patience` seconds without contact."""
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
        """Valid epochs received so far."""
        return list(self._record.epochs)

    @property
    def state(self) -> str:
        """Last received state, such as RUNNING."""
        return self._record.state

    @property
    def result(self) -> Result | None:
        """Final state and model version; None before the end was received. Raises TrainingFailed if it failed."""
        return self._record.outcome() if self._record.has_ended else None

    def wait(self) -> Result:
        """Follows the training to its end. Raises TrainingFailed if it failed."""
        for _ in self.events():
            pass
        return self._record.outcome()

    def get(self) -> training_pb2.Training:
        """Returns the current state of the training."""
        with translated():
            found: training_pb2.Training = self._client.trainings.GetTraining(training_pb2.GetTrainingRequest(name=self.name)).training
            return found

    def stop(self) -> None:
        """Stops it early and keeps its best checkpoint; raises FailedPrecondition if it has ended."""
        with translated():
            self._client.trainings.StopTraining(training_pb2.StopTrainingRequest(name=self.name))

    def pause(self) -> None:
        """Releases the device until `resume`; the training keeps its progress."""
        with translated():
            self._client.trainings.PauseTraining(training_pb2.PauseTrainingRequest(name=self.name))

    def resume(self) -> None:
        """Puts it back into the queue; waits while it is still pausing."""
        self._record.backoff.begin()
        while True:
            try:
                with translated():
                    self._client.trainings.ResumeTraining(training_pb2.ResumeTrainingRequest(name=self.name))
                return
            except VisageError as error:
                time.sleep(self._record.backoff.delay_after(error))

    def cancel(self, force: bool = False) -> None:
        """Discards it. `force` kills its process instead of stopping it."""
        with translated():
            self._client.trainings.CancelTraining(training_pb2.CancelTrainingRequest(name=self.name, force=force))

    def plot(self, follow: bool = True) -> Figure:
        """Plots loss and error by epoch. Requires matplotlib (`visage-client[notebook]`).

        In a notebook the plot is updated until the training ends. With `follow=False` it shows the epochs
        received so far. The returned figure can be saved: `training.plot().savefig("curves.png")`.
        """
        from .plotting import Board

        board = Board(self._record)
        if follow:
            for _ in self:
                board.redraw()
        return board.redraw()
