"""Draws the pictures under tests/fixtures/imaging and writes what Pillow makes of them.

Run with Python 3.11 or later, Pillow and numpy:  python tests/python/make_imaging_fixtures.py
The files in the repository were made with Pillow 13.0.0 and numpy 2.4.6.

Every picture is drawn here. For each, expected.json names the file and a .bin beside it with the RGB bytes (rows from the
top, three bytes a pixel) that Pillow gives after: open, exif_transpose, convert("RGB"), resize((32, 32), BILINEAR).
"""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageDraw, ImageOps

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "imaging"
SIZE = 32
ORIENTATION = 0x0112
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def drawing(width, height):
    """A picture without any symmetry, so that a wrong orientation or a swapped channel cannot pass."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    ground = np.stack([x * 255 // width, y * 255 // height, (x + 2 * y) % 256], axis=-1)
    image = Image.fromarray(ground.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.ellipse([width * 0.1, height * 0.1, width * 0.4, height * 0.5], fill=(250, 30, 20))
    pen.rectangle([width * 0.6, height * 0.55, width * 0.9, height * 0.8], fill=(10, 40, 240))
    pen.line([0, height - 1, width - 1, height * 0.3], fill=(255, 255, 255), width=2)
    return image


def noise(width, height, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_of_16_bits(samples, colour_type):
    """Pillow cannot write 16-bit RGB; a PNG of one IDAT and no filter is quickly put together by hand."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def pattern(width, height):
    """The same integers as `pattern` in src/imaging/tests.rs, for a picture too large to be stored."""
    x, y = np.meshgrid(np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64))
    red = (x * x // 97 + y * 3) % 256
    green = (x * 7 + y * y // 53) % 256
    blue = (x // 5 * 31 + y // 3 * 17) % 256
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    entries = []

    def add(name, content, kind, expected=None):
        """Stores one picture; `expected` replaces Pillow's reading of it where Pillow's is known to be poor."""
        (OUT / name).write_bytes(content)
        image = expected
        if image is None:
            image = Image.open(io.BytesIO(content))
            image.load()
            image = ImageOps.exif_transpose(image).convert("RGB")
        resized = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        (OUT / f"{name}.bin").write_bytes(resized.tobytes())
        entries.append({"file": name, "kind": kind, "width": image.width, "height": image.height})
        return resized

    def encoded(image, encoding, **options):
        target = io.BytesIO()
        image.save(target, encoding, **options)
        return target.getvalue()

    def exif(orientation):
        tags = Image.Exif()
        tags[ORIENTATION] = orientation
        return tags.tobytes()

    wide = drawing(61, 47)
    first = add("wide.png", encoded(wide, "PNG"), "lossless")
    add("tall.png", encoded(drawing(40, 97), "PNG"), "lossless")
    add("noise.png", encoded(noise(75, 50, 1), "PNG"), "lossless")
    add("small.png", encoded(noise(20, 13, 2), "PNG"), "lossless")
    add("same_size.png", encoded(noise(32, 32, 3), "PNG"), "lossless")
    add("palette.png", encoded(wide.quantize(32), "PNG"), "lossless")
    add("oriented_6.png", encoded(wide, "PNG", exif=exif(6)), "lossless")
    add("grey.png", encoded(wide.convert("L"), "PNG"), "lossless")
    add("two_levels.png", encoded(wide.convert("1"), "PNG"), "lossless")

    x, y = np.meshgrid(np.arange(61), np.arange(47))
    alpha = Image.fromarray((x * y % 256).astype(np.uint8))
    with_alpha = wide.copy()
    with_alpha.putalpha(alpha)
    add("alpha.png", encoded(with_alpha, "PNG"), "lossless")
    grey_alpha = wide.convert("L")
    grey_alpha.putalpha(alpha)
    add("grey_alpha.png", encoded(grey_alpha, "PNG"), "lossless")
    transparent = wide.quantize(32)
    transparent.info["transparency"] = 3
    add("palette_transparency.png", encoded(transparent, "PNG", transparency=3), "lossless")

    rng = np.random.default_rng(4)
    fine = np.asarray(wide).astype(np.uint16) * 256 + rng.integers(0, 256, (47, 61, 3), dtype=np.uint16)
    add("rgb_16_bits.png", png_of_16_bits(fine, 2), "lossless")
    # Pillow clips 16-bit grey to 255, which makes nearly every picture white; the upper byte is what is wanted.
    upper = Image.fromarray((fine[..., 0] >> 8).astype(np.uint8)).convert("RGB")
    add("grey_16_bits.png", png_of_16_bits(fine[..., 0], 0), "lossless", expected=upper)

    add("plain.bmp", encoded(wide, "BMP"), "lossless")
    add("grey.bmp", encoded(wide.convert("L"), "BMP"), "lossless")
    add("lossless.webp", encoded(wide, "WEBP", lossless=True), "lossless")
    add("lossless_alpha.webp", encoded(with_alpha, "WEBP", lossless=True, exact=True), "lossless")
    add("oriented_3.webp", encoded(wide, "WEBP", lossless=True, exif=exif(3)), "lossless")
    add("lossy.webp", encoded(wide, "WEBP", quality=80), "lossy")

    add("full_chroma.jpg", encoded(wide, "JPEG", quality=92, subsampling=0), "lossy")
    add("half_chroma.jpg", encoded(wide, "JPEG", quality=85, subsampling=2), "lossy")
    add("progressive.jpg", encoded(wide, "JPEG", quality=85, progressive=True), "lossy")
    add("grey.jpg", encoded(wide.convert("L"), "JPEG", quality=90), "lossy")
    add("cmyk.jpg", encoded(wide.convert("CMYK"), "JPEG", quality=92), "lossy")
    for orientation in range(2, 9):
        content = encoded(wide, "JPEG", quality=92, subsampling=0, exif=exif(orientation))
        add(f"oriented_{orientation}.jpg", content, "lossy")

    normalised = (np.asarray(first).astype(np.float32) / np.float32(255) - MEAN) / STD
    planes = np.ascontiguousarray(normalised.transpose(2, 0, 1)).astype("<f4")
    (OUT / "wide.normalised.bin").write_bytes(planes.tobytes())

    large = []
    for width, height, size in [(1300, 900, 224), (1300, 900, 112), (200, 200, 224), (3000, 17, 64)]:
        resized = np.asarray(pattern(width, height).resize((size, size), Image.Resampling.BILINEAR))
        rows = [0, 1, size // 2, size - 1]
        name = f"pattern_{width}x{height}_{size}.bin"
        (OUT / name).write_bytes(resized[rows].tobytes())
        large.append({"file": name, "width": width, "height": height, "size": size, "rows": rows})

    index = {"pillow": PIL.__version__, "size": SIZE, "pictures": entries, "patterns": large}
    (OUT / "expected.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
