"""Images of all supported types, their encoding, and their grouping into calls."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from visage.v1 import prediction_pb2, system_pb2

if TYPE_CHECKING:
    import numpy
    from PIL import Image

    # A file, an encoded image, a PIL image, or an array [height, width] or [height, width, 3 or 4]
    # of uint8.
    ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | numpy.ndarray[Any, Any]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# Larger calls are not faster, and a refused call is sent again as a whole.
MAX_IMAGES = 32
# Upper bounds of the encoding overhead in bytes, per request and per image.
REQUEST_OVERHEAD, IMAGE_OVERHEAD = 4096, 16
# Modes that PNG supports; others are converted.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


@dataclass(frozen=True)
class Interval:
    """A range of ages in years, from `lower` to `upper`, that contains the true age with this confidence (0 to 1)."""

    lower: float
    upper: float
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """The predicted age on one image."""

    # Years, 0 or above.
    age: float
    # None if the version is not calibrated.
    interval: Interval | None
    # Size of the upright image in pixels.
    width: int
    height: int
    # `models/{model}/versions/{n}`.
    model_version: str
    # The image with the age drawn on it, if requested.
    annotated_png: bytes | None = None
    # The file, if the image was given as a path.
    source: pathlib.Path | None = None


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file, and its path if it has one."""

    content: bytes
    source: pathlib.Path | None


@dataclass(frozen=True)
class Options:
    """Fields of a request other than its images."""

    model: str
    annotate: bool
    interval_level: float | None

    def request(self, images: Iterable[EncodedImage]) -> prediction_pb2.PredictRequest:
        return prediction_pb2.PredictRequest(images=[image.content for image in images], model=self.model, annotate=self.annotate,
                                             interval_level=self.interval_level)


def encode(image: ImageLike) -> EncodedImage:
    """Reads a file, or encodes pixels losslessly. Raises TypeError for an object that is not an image."""
    if isinstance(image, bytes):
        return EncodedImage(image, None)
    if isinstance(image, (str, os.PathLike)):
        path = pathlib.Path(image)
        return EncodedImage(path.read_bytes(), path)
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise TypeError(f"encoding a {type(image).__name__} requires Pillow: `pip install visage-client[images]`, or pass a path or bytes") from error
    if hasattr(image, "__array_interface__") and not isinstance(image, Image.Image):
        if image.dtype != "uint8" or image.ndim not in (2, 3):
            raise TypeError(f"an image array must be uint8 with the shape [height, width] or [height, width, channels], got {image.dtype} with "
                            f"the shape {image.shape}; pass several images as a list")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"an image must be a path, bytes, a PIL image or a numpy array, got {type(image).__name__}")
    # The encoded PNG has no EXIF data, so the orientation is applied here.
    upright = ImageOps.exif_transpose(image)
    buffer = io.BytesIO()
    # Servers are usually local and images small, so fast compression beats small files.
    (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return EncodedImage(buffer.getvalue(), None)


def chunks(images: Iterable[ImageLike], limits: system_pb2.Limits, parallel: int) -> Iterator[list[EncodedImage]]:
    """Groups images so that a call respects the server's limits and all concurrent calls use half of its queue at most."""
    max_images = max(1, min(MAX_IMAGES, limits.max_images_per_request, limits.max_queued_images // (2 * parallel)))
    max_bytes = limits.max_message_bytes - REQUEST_OVERHEAD
    chunk: list[EncodedImage] = []
    size = 0
    for image in map(encode, images):
        needed = len(image.content) + IMAGE_OVERHEAD
        if chunk and (len(chunk) == max_images or size + needed > max_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(image)
        size += needed
    if chunk:
        yield chunk


def predictions(images: Iterable[EncodedImage], response: prediction_pb2.PredictResponse) -> list[Prediction]:
    """The predictions of one call."""
    return [Prediction(one.age, Interval(one.interval.lower, one.interval.upper, one.interval.confidence) if one.HasField("interval") else None,
                       one.width, one.height, response.model_version, one.annotated_png or None, image.source)
            for image, one in zip(images, response.predictions, strict=True)]


def files(directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The image files below a directory, sorted by path."""
    return sorted(path for path in pathlib.Path(directory).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
