"""Predictions on any number of images, with calls below the server's limits."""

from __future__ import annotations

import os
import pathlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from visage.v1 import prediction_pb2

from .. import images as encoding, keywords, names
from ..backoff import Backoff
from ..errors import FieldViolation, InvalidArgument, VisageError, invalid
from ..images import EncodedImage
from ..requests import message
from ..session import Session
from ..steps import Blocking, Emit, Items, Sleep, Start, Wait
from ..values.message import convert
from ..values.prediction import Prediction
from .server import info

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..images import ImageLike

    OnError = Callable[[EncodedImage, VisageError], None]

DEFAULT_PARALLEL = 4


class PredictOptions(TypedDict, total=False):
    """Keyword arguments of all predictions."""

    # Number or alias of the version, or its full name. Default: "live".
    version: int | str
    # Name of the model. Default: "age".
    model: str
    # Predict each detected face instead of the whole image.
    detect_faces: bool
    # Return the contribution of each part of the image to the age.
    explain: bool
    # Average the predictions of the image and its mirror image; twice the work.
    average_flip: bool
    # Return the image with the age drawn on it as a PNG.
    annotate: bool
    # Confidence of the intervals, above 0 and below 1, rounded up to a level that the version
    # supports. Default: 0.9.
    interval_level: float | None
    # BATCH yields to requests of users who wait. Default: INTERACTIVE.
    priority: Literal["INTERACTIVE", "BATCH"]
    # Deadline of each call, of at most 32 images, in seconds. Default: `timeout` of the client.
    timeout: float | None
    # Concurrent calls, at least 1. Default: 4.
    parallel: int
    # Called with each image that the server refuses and the error; the image has no prediction.
    # Without it the error is raised.
    on_error: OnError | None


def predict_many(session: Session, images: Iterable[ImageLike], **options: Unpack[PredictOptions]) -> Items[Prediction]:
    """Predicts the ages on any number of images and yields the predictions in order.

    Images are read on demand; the memory holds those of `parallel` calls at most.

    Args:
        images: Images as for `predict`.
        **options: Keyword arguments of all predictions:
            version: Number or alias of the version, or its full name. Default: "live".
            model: Name of the model. Default: "age".
            detect_faces: Predict each detected face instead of the whole image.
            explain: Return the contribution of each part of the image to the age.
            average_flip: Average the predictions of the image and its mirror image; twice the work.
            annotate: Return the image with the age drawn on it, in `annotated_png`.
            interval_level: Confidence of the intervals, above 0 and below 1, rounded up to a level that the version
                supports. Default: 0.9.
            priority: "BATCH" yields to requests of users who wait. Default: "INTERACTIVE".
            timeout: Deadline of each call, of at most 32 images, in seconds. Default: that of the client.
            parallel: Concurrent calls, at least 1. Default: 4.
            on_error: Called with each image that the server refuses (`source`, `content`) and the error; the image has no
                prediction. Without it the error is raised.

    Raises:
        InvalidArgument: An option is invalid, or an image cannot be decoded and `on_error` is missing.
        FailedPrecondition: No version is live.
        NotFound: The version does not exist.
        Unavailable: The server did not respond for `patience` seconds.
        TypeError: A keyword argument is unknown, or an object is not an image.
    """
    return _predictions(session, images, Calls(session, options))


def predict_directory(session: Session, directory: str | os.PathLike[str], **options: Unpack[PredictOptions]) -> Items[Prediction]:
    """Predicts on all images below a directory of this machine, sorted by path, which is the `source` of each prediction.

    Yields nothing if the directory contains no image. Raises FileNotFoundError or NotADirectoryError at the call if it
    is not a directory. `options` and further errors are those of `predict_many`.
    """
    path = encoding.existing(directory)
    return _directory(session, path, Calls(session, options))


def without_on_error(options: PredictOptions) -> PredictOptions:
    """Options of the prediction of one image, which raises its error."""
    keywords.check("predict for one image", options, PredictOptions.__annotations__.keys() - {"on_error"})
    return options


class Calls:
    """Checked options of a prediction, and its calls."""

    def __init__(self, session: Session, options: Mapping[str, Any]) -> None:
        keywords.check("predict", options, PredictOptions.__annotations__)
        self.parallel: int = options.get("parallel", DEFAULT_PARALLEL)
        self.on_error: OnError | None = options.get("on_error")
        timeout = options.get("timeout")
        self._timeout: float | None = session.timeout if timeout is None else timeout
        self._method = session.prediction_stub.Predict
        if not isinstance(self.parallel, int) or self.parallel < 1:
            raise invalid([FieldViolation("parallel", f"must be an integer of at least 1, got {self.parallel!r}")])
        if self._timeout is not None and not self._timeout > 0:
            raise invalid([FieldViolation("timeout", f"must be above 0 seconds, got {self._timeout!r}")])
        fields = {name: value for name, value in options.items() if name in prediction_pb2.PredictRequest.DESCRIPTOR.fields_by_name}
        fields["model"] = names.version(options.get("version", "live"), options.get("model", "age"))
        self._request = message(prediction_pb2.PredictRequest, fields)

    def start(self, images: Iterable[EncodedImage]) -> Start:
        request = prediction_pb2.PredictRequest(images=[image.content for image in images])
        request.MergeFrom(self._request)
        return Start(self._method, request, self._timeout)


def _directory(session: Session, directory: pathlib.Path, calls: Calls) -> Items[Prediction]:
    files = yield Blocking(lambda: encoding.files(directory))
    yield from _predictions(session, files, calls)


def _predictions(session: Session, images: Iterable[ImageLike], calls: Calls) -> Items[Prediction]:
    if session.limits is None:
        session.limits = (yield from info(session)).limits
    chunks = encoding.chunks(images, session.limits, calls.parallel)
    in_flight: deque[tuple[list[EncodedImage], Any]] = deque()
    try:
        # Reading and encoding block, so that the asynchronous client does them on a thread.
        while (chunk := (yield Blocking(lambda: next(chunks, None)))) is not None:
            in_flight.append((chunk, (yield calls.start(chunk))))
            if len(in_flight) == calls.parallel:
                yield from _received(session, *in_flight.popleft(), calls)
        while in_flight:
            yield from _received(session, *in_flight.popleft(), calls)
    finally:
        for _, call in in_flight:
            call.cancel()


def _received(session: Session, chunk: list[EncodedImage], call: Any, calls: Calls) -> Items[Prediction]:
    """The predictions of a call, which is repeated after lost connections and while the queue is full."""
    backoff = Backoff(session.patience)
    while True:
        try:
            response = yield Wait(call)
            session.note_contact()
            break
        except InvalidArgument as error:
            if calls.on_error is None:
                raise
            if len(chunk) > 1:
                yield from _one_by_one(session, chunk, calls)
            else:
                calls.on_error(chunk[0], error)
            return
        except VisageError as error:
            yield Sleep(session.delay_after(error, backoff))
            call = yield calls.start(chunk)
    for image, one in zip(chunk, response.predictions, strict=True):
        yield Emit(convert(Prediction, one, model_version=response.model_version, source=image.source))


def _one_by_one(session: Session, chunk: list[EncodedImage], calls: Calls) -> Items[Prediction]:
    for image in chunk:
        yield from _received(session, [image], (yield calls.start([image])), calls)
