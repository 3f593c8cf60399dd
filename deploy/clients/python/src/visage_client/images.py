"""Images of all supported types, their encoding, and their grouping into calls."""

from __future__ import annotations

import errno
import io
import os
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import MissingDependency
from .values.server import Limits

if TYPE_CHECKING:
    import numpy
    from PIL import Image

    # A file, an encoded image, a PIL image, or an array [height, width] or [height, width, 3 or 4]
    # of uint8.
    ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | numpy.ndarray[Any, Any]

# Suffixes that the server recognizes in a dataset.
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".png", ".webp", ".bmp", ".dib"}
# Larger calls are not faster, and a refused call is sent again as a whole.
MAX_IMAGES = 32
# Upper bounds of the encoding overhead in bytes, per request and per image.
REQUEST_OVERHEAD, IMAGE_OVERHEAD = 4096, 16
# Modes that PNG supports; others are converted.
PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}


@dataclass(frozen=True)
class EncodedImage:
    """The bytes of an image file, and its path if it has one."""

    content: bytes
    source: pathlib.Path | None


def encode(image: ImageLike) -> EncodedImage:
    """Reads a file, or encodes pixels losslessly.

    Raises TypeError for an object that is not an image, and MissingDependency, an ImportError, without Pillow.
    """
    if isinstance(image, bytes):
        return EncodedImage(image, None)
    if isinstance(image, (str, os.PathLike)):
        path = pathlib.Path(image)
        return EncodedImage(path.read_bytes(), path)
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        if not hasattr(image, "__array_interface__"):
            raise not_an_image(image) from None
        raise MissingDependency(f"encoding a {type(image).__name__}", "Pillow", "images") from error
    if hasattr(image, "__array_interface__") and not isinstance(image, Image.Image):
        if image.dtype != "uint8" or image.ndim not in (2, 3):
            raise TypeError(f"an image array must be uint8 with the shape [height, width] or [height, width, channels], got {image.dtype} with "
                            f"the shape {image.shape}; pass several images as a list")
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise not_an_image(image)
    # The encoded PNG has no EXIF data, so the orientation is applied here.
    upright = ImageOps.exif_transpose(image)
    buffer = io.BytesIO()
    # Servers are usually local and images small, so fast compression beats small files.
    (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return EncodedImage(buffer.getvalue(), None)


def not_an_image(image: object) -> TypeError:
    return TypeError(f"an image must be a path, bytes, a PIL image or a numpy array, got {type(image).__name__}")


def chunks(images: Iterable[ImageLike], limits: Limits, parallel: int) -> Iterator[list[EncodedImage]]:
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


def files(directory: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The image files below a directory, sorted by path; empty if it contains no image."""
    return sorted(path for path in existing(directory).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def existing(directory: str | os.PathLike[str]) -> pathlib.Path:
    """The directory; raises FileNotFoundError or NotADirectoryError with its absolute path."""
    path = pathlib.Path(directory)
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(errno.ENOTDIR, "not a directory; use predict for an image", str(path.absolute()))
    raise FileNotFoundError(errno.ENOENT, "the directory does not exist", str(path.absolute()))
