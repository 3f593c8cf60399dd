"""What can be predicted on, how it becomes an encoded image, and how many images go into one call."""

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

    # A file, an encoded image, a PIL image, or an array [height, width] or [height, width, 3 or 4] of uint8.
    ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | numpy.ndarray[Any, Any]

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# More images in a call make it no faster, and a call that is refused is sent again as a whole.
MOST_IMAGES = 32
# For the fields of a request beside its images, and for the few bytes in front of each image.
BYTES_BESIDE, BYTES_BESIDE_IMAGE = 4096, 16
# Modes that PNG holds as they are; others are converted.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


@dataclass(frozen=True)
class Interval:
    """A range of ages in years that holds this share of true ages."""

    lower: float
    upper: float
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """The predicted age on one image."""

    age: float
    interval: Interval | None
    width: int
    height: int
    model_version: str
    annotated_png: bytes | None = None
    # The file, where one was given.
    source: pathlib.Path | None = None


@dataclass(frozen=True)
class Picture:
    """An encoded image and the file that it is from."""

    content: bytes
    source: pathlib.Path | None


@dataclass(frozen=True)
class Options:
    """What a request says beside its images."""

    model: str
    annotate: bool
    interval_level: float | None

    def request(self, pictures: Iterable[Picture]) -> prediction_pb2.PredictRequest:
        return prediction_pb2.PredictRequest(images=[picture.content for picture in pictures], model=self.model, annotate=self.annotate,
                                             interval_level=self.interval_level)


def encode(image: ImageLike) -> Picture:
    """Reads a file or encodes pixels, without loss."""
    if isinstance(image, bytes):
        return Picture(image, None)
    if isinstance(image, (str, os.PathLike)):
        path = pathlib.Path(image)
        return Picture(path.read_bytes(), path)
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise TypeError(f"a {type(image).__name__} needs Pillow to be encoded: `pip install visage-client[images]`, or give a path or bytes") from error
    if hasattr(image, "__array_interface__") and not isinstance(image, Image.Image):
        if image.dtype != "uint8" or image.ndim not in (2, 3):
            raise TypeError(f"an array of {image.dtype} with the shape {image.shape} is no image: it must be uint8 and [height, width] or "
                            "[height, width, channels], and several go into a list")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"a {type(image).__name__} is no image: give a path, bytes, a PIL image, a numpy array, or a list of them")
    # A file's orientation would be lost with its EXIF.
    upright = ImageOps.exif_transpose(image)
    buffer = io.BytesIO()
    # The pixels are on the same machine most of the time, or small: a fast encoding beats a short one.
    (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return Picture(buffer.getvalue(), None)


def chunks(images: Iterable[ImageLike], limits: system_pb2.Limits, parallel: int) -> Iterator[list[Picture]]:
    """Groups images so that a call stays under the server's limits, and all calls at once under half of its queue. Images are read as they are needed."""
    most_images = max(1, min(MOST_IMAGES, limits.max_images_per_request, limits.max_queued_images // (2 * parallel)))
    most_bytes = limits.max_message_bytes - BYTES_BESIDE
    chunk: list[Picture] = []
    size = 0
    for picture in map(encode, images):
        needed = len(picture.content) + BYTES_BESIDE_IMAGE
        if chunk and (len(chunk) == most_images or size + needed > most_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(picture)
        size += needed
    if chunk:
        yield chunk


def predictions(pictures: Iterable[Picture], response: prediction_pb2.PredictResponse) -> list[Prediction]:
    """The answer of one call."""
    return [Prediction(one.age, Interval(one.interval.lower, one.interval.upper, one.interval.confidence) if one.HasField("interval") else None,
                       one.width, one.height, response.model_version, one.annotated_png or None, picture.source)
            for picture, one in zip(pictures, response.predictions, strict=True)]


def files(folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The images of a folder and of those below it, by name."""
    return sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
