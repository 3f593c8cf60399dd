"""The blocking client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import grpc

from . import names, operations, session
from .access import Access, Plain
from .operations.followed import Followed
from .session import Session
from .steps import Owner, blocking, items, iterating, run
from .values.prediction import Prediction
from .values.training import Epoch, Result, TrainingInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from typing_extensions import Unpack

    from .images import ImageLike
    from .operations.prediction import PredictOptions
    from .operations.training import DatasetLike, TrainOptions


class Client(Owner[Session]):
    """A connection to one server, closed by `with` or `close`.

    Args:
        target: Address of the gRPC port: `host:port`, `https://host:port` for TLS, or `unix:/path`.
        token: Token that the server requires; sent over TLS or to a loopback address only.
        token_file: File with the token.
        ca: Certificates (PEM) of the authority that issued the server's certificate, instead of the system's; enables TLS.
        cert: Client certificate (PEM); enables TLS.
        key: Private key (PEM) of `cert`.
        credentials: Credentials of the gRPC channel, instead of those of the other arguments.
        patience: Seconds without contact after which a followed training, a prediction or an upload fails.
        connect_timeout: Seconds after which the first calls fail if no server responds at the address.
        timeout: Deadline of a unary call in seconds; None disables it.
        channel_options: Further options of the gRPC channel; they override the defaults.
    """

    def __init__(self, target: str = "localhost:50051", *, token: str | None = None, token_file: str | os.PathLike[str] | None = None,
                 ca: str | os.PathLike[str] | None = None, cert: str | os.PathLike[str] | None = None, key: str | os.PathLike[str] | None = None,
                 credentials: grpc.ChannelCredentials | None = None, patience: float = 300.0,
                 connect_timeout: float = 2.0, timeout: float | None = 60.0, channel_options: Mapping[str, Any] | None = None) -> None:
        options = session.options(channel_options or {})
        access = Access.of(target, token, token_file, ca, cert, key, credentials is not None)
        if access.is_tls:
            channel = grpc.secure_channel(access.target, credentials or access.channel_credentials(), options=options)
        else:
            channel = grpc.insecure_channel(access.target, options=options)
            metadata = access.plain_metadata()
            channel = grpc.intercept_channel(channel, Plain(metadata)) if metadata else channel
        super().__init__(Session(access, channel, patience, connect_timeout, timeout))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancels all calls and closes the connection."""
        self.channel.close()

    @property
    def channel(self) -> grpc.Channel:
        """The gRPC channel, for calls that this class lacks."""
        channel: grpc.Channel = self._state.channel
        return channel

    info = blocking(operations.server.info)

    def train(self, dataset: DatasetLike, epochs: int | None = None, **options: Unpack[TrainOptions]) -> Training:
        """Starts a training and returns without waiting for it.

        Args:
            dataset: Directory or manifest on the server's disk, a named dataset (`"datasets/faces"` or a `Dataset`), or
                fields of DatasetSpec such as `{"path": "/data/faces", "age_pattern": "morph"}`. A relative path that
                exists here is made absolute if the server runs on this machine.
            epochs: Maximum number of epochs, 1 to 10,000. Default: that of the recipe.
            **options: Fields of TrainingSpec, such as `batch_size=64`, `init="STARTER"`, `recipe="BEST"` or
                `optimizer={"learning_rate": 3e-4}`; and `training_id` (or `id`), `display_name`, `labels` and
                `request_id`. `TrainOptions` describes all of them. Repeating a call with the same `request_id`, a UUID,
                returns the first training.

        Raises:
            InvalidArgument: Fields are invalid; `violations` lists all of them.
            AlreadyExists: The `training_id` is taken.
            ResourceExhausted: The queue of trainings is full.
            TypeError: A keyword argument is unknown.
        """
        return Training(self._state, run(operations.training.start(self._state, dataset, epochs, options)))

    validate = blocking(operations.training.validate)
    trainings = blocking(operations.training.trainings)
    compare = blocking(operations.training.compare)

    def training(self, name: str | TrainingInfo) -> Training:
        """Returns an existing training by name, id or an item of `trainings`. Its iteration starts with the first epoch."""
        return Training(self._state, names.training(name.name if isinstance(name, TrainingInfo) else name))

    @overload
    def predict(self, image: list[ImageLike], **options: Unpack[PredictOptions]) -> list[Prediction]: ...

    @overload
    def predict(self, image: ImageLike, **options: Unpack[PredictOptions]) -> Prediction: ...

    def predict(self, image: ImageLike | list[ImageLike], **options: Unpack[PredictOptions]) -> Prediction | list[Prediction]:
        """Predicts the age on one image or a list of images.

        Args:
            image: A path, the bytes of a JPEG, PNG, WebP or BMP file, a PIL image, or a numpy array of uint8
                with the shape [height, width] (grey) or [height, width, 3 or 4] (RGB or RGBA).
            **options: Keyword arguments of `predict_many`, such as `version=3`, `detect_faces=True`, `explain=True`,
                `average_flip=True`, `annotate=True`, `interval_level=0.8` and `timeout=5.0`.

        Returns:
            A `Prediction` for one image, a list of them in the same order for a list.

        Raises:
            InvalidArgument: An image cannot be decoded or exceeds a limit of the server.
            FailedPrecondition: No version is live.
            FileNotFoundError: The file does not exist.
            TypeError: A keyword argument is unknown, or the object is not an image.
        """
        if isinstance(image, list):
            return list(self.predict_many(image, **options))
        found, = self.predict_many([image], **operations.prediction.without_on_error(options))
        return found

    predict_many = iterating(operations.prediction.predict_many)
    predict_directory = iterating(operations.prediction.predict_directory)
    # Earlier name.
    predict_folder = predict_directory

    evaluate = blocking(operations.evaluation.evaluate)
    evaluation = blocking(operations.evaluation.evaluation)

    models = blocking(operations.version.models)
    version = blocking(operations.version.version)
    promote = blocking(operations.version.promote)
    rollback = blocking(operations.version.rollback)
    delete_alias = blocking(operations.version.delete_alias)
    alias_history = blocking(operations.version.alias_history)
    delete_version = blocking(operations.version.delete_version)
    register_version = blocking(operations.version.register_version)
    register_starter = blocking(operations.version.register_starter)
    export = blocking(operations.version.export)

    datasets = blocking(operations.dataset.datasets)
    dataset = blocking(operations.dataset.dataset)
    register_dataset = blocking(operations.dataset.register_dataset)
    push_dataset = blocking(operations.dataset.push_dataset)
    check_dataset = blocking(operations.dataset.check_dataset)
    delete_dataset = blocking(operations.dataset.delete_dataset)
    uploads = blocking(operations.dataset.uploads)
    delete_upload = blocking(operations.dataset.delete_upload)


class Training(Owner[Followed]):
    """A training on the server, followed by a cursor.

    A lost connection or a restarted server neither skips nor repeats an event. Iterating yields completed
    epochs (`Epoch`) until the training ends; iterating again continues after the last one. If the server returns to an
    earlier checkpoint, it repeats epochs: they are yielded again with a higher `attempt`, and `epochs` holds the valid
    ones.
    """

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(Followed(session, name))

    @property
    def name(self) -> str:
        """`trainings/{id}`."""
        return self._state.name

    def __iter__(self) -> Iterator[Epoch]:
        return items(operations.followed.epochs(self._state))

    events = iterating(operations.followed.events)
    wait = blocking(operations.followed.wait)
    refresh = blocking(operations.followed.refresh)
    get = blocking(operations.followed.get)
    stop = blocking(operations.followed.stop)
    pause = blocking(operations.followed.pause)
    resume = blocking(operations.followed.resume)
    cancel = blocking(operations.followed.cancel)
    update = blocking(operations.followed.update)
    delete = blocking(operations.followed.delete)
    checkpoints = blocking(operations.followed.checkpoints)
    download = blocking(operations.followed.download)

    @property
    def epochs(self) -> list[Epoch]:
        """Valid epochs of the training so far, as the server has them now."""
        self.refresh()
        return list(self._state.latest.epochs)

    @property
    def state(self) -> str:
        """State of the training now, such as RUNNING."""
        self.refresh()
        return self._state.latest.state

    @property
    def result(self) -> Result | None:
        """Outcome of an ended training, otherwise None. Raises TrainingFailed if it failed."""
        self.refresh()
        return self._state.latest.outcome() if self._state.latest.has_ended else None

    def plot(self, follow: bool = True) -> Figure:
        """Plots loss and error by epoch. Requires matplotlib (`visage-client[notebook]`).

        In a notebook the plot is updated until the training ends. With `follow=False` it shows the epochs so far. The
        returned figure can be saved: `training.plot().savefig("curves.png")`.
        """
        board = operations.followed.board()
        if not follow:
            self.refresh()
            return board.redraw(self._state.latest)
        for _ in self:
            board.redraw(self._state.followed)
        return board.redraw(self._state.followed)
