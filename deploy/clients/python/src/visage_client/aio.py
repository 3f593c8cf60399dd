"""The asyncio client: the methods of `client`, with `await` and `async for`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import grpc

from . import names, operations, session
from .access import Access, aio_interceptors
from .operations.followed import Followed
from .session import Session
from .steps import Owner, awaiting, items_async, iterating_async, run_async
from .values.prediction import Prediction
from .values.training import Epoch, Result, TrainingInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

    from .images import ImageLike
    from .operations.prediction import PredictOptions
    from .operations.training import DatasetLike, TrainOptions


class AsyncClient(Owner[Session]):
    """A connection to one server, closed by `async with` or `close`. Arguments and methods are those of `Client`."""

    def __init__(self, target: str = "localhost:50051", *, token: str | None = None, token_file: str | os.PathLike[str] | None = None,
                 ca: str | os.PathLike[str] | None = None, cert: str | os.PathLike[str] | None = None, key: str | os.PathLike[str] | None = None,
                 credentials: grpc.ChannelCredentials | None = None, patience: float = 300.0,
                 connect_timeout: float = 2.0, timeout: float | None = 60.0, channel_options: Mapping[str, Any] | None = None) -> None:
        options = session.options(channel_options or {})
        access = Access.of(target, token, token_file, ca, cert, key, credentials is not None)
        if access.is_tls:
            channel = grpc.aio.secure_channel(access.target, credentials or access.channel_credentials(), options=options)
        else:
            channel = grpc.aio.insecure_channel(access.target, options=options, interceptors=aio_interceptors(access.plain_metadata()))
        super().__init__(Session(access, channel, patience, connect_timeout, timeout))

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels all calls and closes the connection."""
        await self.channel.close()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The gRPC channel, for calls that this class lacks."""
        channel: grpc.aio.Channel = self._state.channel
        return channel

    info = awaiting(operations.server.info)

    async def train(self, dataset: DatasetLike, epochs: int | None = None, **options: Unpack[TrainOptions]) -> AsyncTraining:
        """Starts a training; see `Client.train`."""
        return AsyncTraining(self._state, await run_async(operations.training.start(self._state, dataset, epochs, options)))

    validate = awaiting(operations.training.validate)
    trainings = awaiting(operations.training.trainings)
    compare = awaiting(operations.training.compare)

    def training(self, name: str | TrainingInfo) -> AsyncTraining:
        """Returns an existing training; see `Client.training`."""
        return AsyncTraining(self._state, names.training(name.name if isinstance(name, TrainingInfo) else name))

    @overload
    async def predict(self, image: list[ImageLike], **options: Unpack[PredictOptions]) -> list[Prediction]: ...

    @overload
    async def predict(self, image: ImageLike, **options: Unpack[PredictOptions]) -> Prediction: ...

    async def predict(self, image: ImageLike | list[ImageLike], **options: Unpack[PredictOptions]) -> Prediction | list[Prediction]:
        """Predicts on one image or a list of them; see `Client.predict`."""
        if isinstance(image, list):
            return [one async for one in self.predict_many(image, **options)]
        found, = [one async for one in self.predict_many([image], **operations.prediction.without_on_error(options))]
        return found

    predict_many = iterating_async(operations.prediction.predict_many)
    predict_directory = iterating_async(operations.prediction.predict_directory)
    # Earlier name.
    predict_folder = predict_directory

    evaluate = awaiting(operations.evaluation.evaluate)
    evaluation = awaiting(operations.evaluation.evaluation)

    models = awaiting(operations.version.models)
    version = awaiting(operations.version.version)
    promote = awaiting(operations.version.promote)
    rollback = awaiting(operations.version.rollback)
    delete_alias = awaiting(operations.version.delete_alias)
    alias_history = awaiting(operations.version.alias_history)
    delete_version = awaiting(operations.version.delete_version)
    register_version = awaiting(operations.version.register_version)
    register_starter = awaiting(operations.version.register_starter)
    export = awaiting(operations.version.export)

    datasets = awaiting(operations.dataset.datasets)
    dataset = awaiting(operations.dataset.dataset)
    register_dataset = awaiting(operations.dataset.register_dataset)
    push_dataset = awaiting(operations.dataset.push_dataset)
    check_dataset = awaiting(operations.dataset.check_dataset)
    delete_dataset = awaiting(operations.dataset.delete_dataset)
    uploads = awaiting(operations.dataset.uploads)
    delete_upload = awaiting(operations.dataset.delete_upload)


class AsyncTraining(Owner[Followed]):
    """A training on the server, followed by a cursor; see `Training`.

    `state`, `epochs` and `result` are those of the last received event: iterate, or call `wait` or `refresh`.
    """

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(Followed(session, name))

    @property
    def name(self) -> str:
        """`trainings/{id}`."""
        return self._state.name

    def __aiter__(self) -> AsyncIterator[Epoch]:
        return items_async(operations.followed.epochs(self._state))

    events = iterating_async(operations.followed.events)
    wait = awaiting(operations.followed.wait)
    refresh = awaiting(operations.followed.refresh)
    get = awaiting(operations.followed.get)
    stop = awaiting(operations.followed.stop)
    pause = awaiting(operations.followed.pause)
    resume = awaiting(operations.followed.resume)
    cancel = awaiting(operations.followed.cancel)
    update = awaiting(operations.followed.update)
    delete = awaiting(operations.followed.delete)
    checkpoints = awaiting(operations.followed.checkpoints)
    download = awaiting(operations.followed.download)

    @property
    def epochs(self) -> list[Epoch]:
        """Valid epochs received so far."""
        return list(self._state.latest.epochs)

    @property
    def state(self) -> str:
        """Last received state, such as RUNNING."""
        return self._state.latest.state

    @property
    def result(self) -> Result | None:
        """Outcome; None before the end was received. Raises TrainingFailed if it failed."""
        return self._state.latest.outcome() if self._state.latest.has_ended else None

    async def plot(self, follow: bool = True) -> Figure:
        """Plots loss and error by epoch; see `Training.plot`."""
        board = operations.followed.board()
        if not follow:
            await self.refresh()
            return board.redraw(self._state.latest)
        async for _ in self:
            board.redraw(self._state.followed)
        return board.redraw(self._state.followed)
