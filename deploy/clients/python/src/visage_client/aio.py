"""The asyncio client: the methods of `client`, with `await` and `async for`."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

import grpc

from visage.v1 import (model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc, system_pb2, system_pb2_grpc, training_pb2,
                       training_pb2_grpc)

from . import channel, images, spec, versions
from .errors import InvalidArgument, VisageError, from_rpc, translated
from .following import Backoff, Record, Result
from .images import EncodedImage, Options, Prediction

if TYPE_CHECKING:
    from .client import OnError
    from .images import ImageLike


class AsyncClient:
    """A connection to one server, closed by `async with` or `close`. See `Client`."""

    def __init__(self, target: str = "localhost:50051", *, credentials: grpc.ChannelCredentials | None = None, patience: float = 300.0,
                 channel_options: dict[str, Any] | None = None) -> None:
        self.patience = patience
        options = channel.options(channel_options or {})
        self.channel = (grpc.aio.insecure_channel(target, options=options) if credentials is None
                        else grpc.aio.secure_channel(target, credentials, options=options))
        self.trainings = training_pb2_grpc.TrainingServiceStub(self.channel)
        self._models = model_pb2_grpc.ModelServiceStub(self.channel)
        self._predictions = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        self._system = system_pb2_grpc.SystemServiceStub(self.channel)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels all calls and closes the connection."""
        await self.channel.close()

    async def info(self) -> system_pb2.GetServerInfoResponse:
        """Returns version, device and limits of the server."""
        with translated():
            info: system_pb2.GetServerInfoResponse = await self._system.GetServerInfo(system_pb2.GetServerInfoRequest())
            return info

    async def train(self, dataset: str | os.PathLike[str] | Mapping[str, Any], epochs: int | None = None, **fields: Any) -> AsyncTraining:
        """Starts a training; see `Client.train`."""
        with translated():
            started = (await self.trainings.StartTraining(spec.start_request(dataset, epochs, fields))).training
        return AsyncTraining(self, started.name)

    def training(self, name: str) -> AsyncTraining:
        """Returns an existing training by name or id."""
        return AsyncTraining(self, channel.training_name(name))

    @overload
    async def predict(self, image: list[ImageLike], **options: Any) -> list[Prediction]: ...

    @overload
    async def predict(self, image: ImageLike, **options: Any) -> Prediction: ...

    async def predict(self, image: ImageLike | list[ImageLike], **options: Any) -> Prediction | list[Prediction]:
        """Predicts on one image or a list of them; see `Client.predict`."""
        found = [one async for one in self.predict_many(image if isinstance(image, list) else [image], **options)]
        return found if isinstance(image, list) else found[0]

    async def predict_folder(self, folder: str | os.PathLike[str], **options: Any) -> AsyncIterator[Prediction]:
        """Predicts on all images below a directory; see `Client.predict_folder`."""
        async for one in self.predict_many(await asyncio.to_thread(images.files, folder), **options):
            yield one

    async def predict_many(self, pictures: Iterable[ImageLike], *, version: int | str = "live", model: str = "age", interval_level: float | None = None,
                           annotate: bool = False, parallel: int = 4, on_error: OnError | None = None) -> AsyncIterator[Prediction]:
        """Yields predictions in order; see `Client.predict_many`."""
        options = Options(channel.version_name(version, model), annotate, interval_level)
        chunks = images.chunks(pictures, (await self.info()).limits, parallel)
        in_flight: deque[tuple[list[EncodedImage], Any]] = deque()
        end: list[EncodedImage] = []
        try:
            # Files are read and pixels encoded on a thread, so that other tasks can run.
            while chunk := await asyncio.to_thread(next, chunks, end):
                in_flight.append((chunk, self._predictions.Predict(options.request(chunk))))
                if len(in_flight) == parallel:
                    for one in await self._received(*in_flight.popleft(), options, on_error):
                        yield one
            while in_flight:
                for one in await self._received(*in_flight.popleft(), options, on_error):
                    yield one
        finally:
            for _, call in in_flight:
                call.cancel()

    async def _received(self, chunk: list[EncodedImage], call: Any, options: Options, on_error: OnError | None) -> list[Prediction]:
        backoff = Backoff(self.patience)
        while True:
            try:
                with translated():
                    response: prediction_pb2.PredictResponse = await call
                    return images.predictions(chunk, response)
            except InvalidArgument as error:
                if on_error is None:
                    raise
                if len(chunk) == 1:
                    on_error(chunk[0], error)
                    return []
                break
            except VisageError as error:
                await asyncio.sleep(backoff.delay_after(error))
                call = self._predictions.Predict(options.request(chunk))
        alone = [([image], self._predictions.Predict(options.request([image]))) for image in chunk]
        return [one for part, call in alone for one in await self._received(part, call, options, on_error)]

    async def models(self, model: str = "age") -> list[model_pb2.ModelVersion]:
        """Returns all versions, newest first; see `Client.models`."""
        found: list[model_pb2.ModelVersion] = []
        request = versions.listing(model)
        with translated():
            while True:
                page = await self._models.ListModelVersions(request)
                found.extend(page.versions)
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token

    async def version(self, version: int | str = "live", model: str = "age") -> model_pb2.ModelVersion:
        """Returns one version by number or alias."""
        with translated():
            found: model_pb2.ModelVersion = (await self._models.GetModelVersion(versions.one(version, model))).version
            return found

    async def promote(self, version: int | str, model: str = "age", alias: str = "live") -> model_pb2.ModelVersion:
        """Points an alias to a version; see `Client.promote`."""
        with translated():
            now: model_pb2.ModelVersion = (await self._models.SetAlias(versions.promotion(version, model, alias))).version
            return now

    async def rollback(self, model: str = "age") -> model_pb2.ModelVersion:
        """Makes the previous live version live again; see `Client.rollback`."""
        live = (await self.version("live", model)).version
        with translated():
            now: model_pb2.ModelVersion = (await self._models.SetAlias(versions.rollback(model, live))).version
            return now


class AsyncTraining:
    """A training on the server, followed by a cursor; see `Training`."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self.name = name
        self._client = client
        self._record = Record(name, Backoff(client.patience))

    async def __aiter__(self) -> AsyncIterator[training_pb2.EpochMetrics]:
        async for event in self.events():
            if event.HasField("epoch_completed"):
                yield event.epoch_completed

    async def events(self) -> AsyncIterator[training_pb2.TrainingEvent]:
        """Yields all events in order, each once."""
        record = self._record
        record.backoff.begin()
        while not record.has_ended:
            stream = self._client.trainings.StreamEpochMetrics(record.request())
            try:
                async for response in stream:
                    if record.take(response.event):
                        yield response.event
            except grpc.RpcError as error:
                await asyncio.sleep(record.backoff.delay_after(from_rpc(error)))
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
        """Final state; None before the end was received. Raises TrainingFailed if it failed."""
        return self._record.outcome() if self._record.has_ended else None

    async def wait(self) -> Result:
        """Follows the training to its end. Raises TrainingFailed if it failed."""
        async for _ in self.events():
            pass
        return self._record.outcome()

    async def stop(self) -> None:
        """Stops it early and keeps its best checkpoint."""
        with translated():
            await self._client.trainings.StopTraining(training_pb2.StopTrainingRequest(name=self.name))

    async def pause(self) -> None:
        """Releases the device until `resume`."""
        with translated():
            await self._client.trainings.PauseTraining(training_pb2.PauseTrainingRequest(name=self.name))

    async def resume(self) -> None:
        """Puts it back into the queue; waits while it is still pausing."""
        self._record.backoff.begin()
        while True:
            try:
                with translated():
                    await self._client.trainings.ResumeTraining(training_pb2.ResumeTrainingRequest(name=self.name))
                return
            except VisageError as error:
                await asyncio.sleep(self._record.backoff.delay_after(error))

    async def cancel(self, force: bool = False) -> None:
        """Discards it. `force` kills its process instead of stopping it."""
        with translated():
            await self._client.trainings.CancelTraining(training_pb2.CancelTrainingRequest(name=self.name, force=force))
