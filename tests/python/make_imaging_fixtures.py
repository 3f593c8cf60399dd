"""Draws the images under tests/fixtures/imaging and writes what Pillow makes of them.

Run with Python 3.11 or later, Pillow and numpy:  python tests/python/make_imaging_fixtures.py
The files in the repository were made with Pillow 13.0.0 and numpy 2.4.6. "lossless" are the files whose decoding the
format fixes, and JPEG, whose decoder is Pillow's own.

Every image is drawn here. For each, expected.json names the file and a .bin beside it with the RGB bytes (rows from the
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
    """An image without any symmetry, so that a wrong orientation or a swapped channel cannot pass."""
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


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_profile(exif):
    """EXIF data as ImageMagick writes it to a PNG: hexadecimal digits in a compressed text chunk."""
    digits = exif.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = b"\nexif\n%8d\n" % len(exif) + lines + b"\n"
    return png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


def webp_chunk(kind, body):
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def extended_webp(canvas, flags, *chunks):
    """A WebP of the extended kind (RFC 9649, section 2.7)."""
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in canvas)
    body = b"WEBP" + webp_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides) + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_frame(image_chunk, place, size, flags=0):
    """A frame of an animation at an even place of the canvas, shown for 100 ms."""
    numbers = [place[0] // 2, place[1] // 2, size[0] - 1, size[1] - 1, 100]
    head = b"".join(struct.pack("<I", number)[:3] for number in numbers) + bytes([flags])
    return webp_chunk(b"ANMF", head + image_chunk)


def pattern(width, height):
    """The same integers as `pattern` in src/imaging/tests.rs, for an image too large to be stored."""
    x, y = np.meshgrid(np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64))
    red = (x * x // 97 + y * 3) % 256
    green = (x * 7 + y * y // 53) % 256
    blue = (x // 5 * 31 + y // 3 * 17) % 256
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        # Not from here: torchvision's numbers.
        if old.name != "colours.in":
            old.unlink()
    entries = []

    def add(name, content, kind, expected=None):
        """Stores one image; `expected` replaces Pillow's reading of it where Pillow's is known to be poor."""
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
    # Pillow clips 16-bit grey to 255, which makes nearly every image white; the upper byte is what is wanted.
    upper = Image.fromarray((fine[..., 0] >> 8).astype(np.uint8)).convert("RGB")
    add("grey_16_bits.png", png_of_16_bits(fine[..., 0], 0), "lossless", expected=upper)

    add("plain.bmp", encoded(wide, "BMP"), "lossless")
    add("grey.bmp", encoded(wide.convert("L"), "BMP"), "lossless")
    add("lossless.webp", encoded(wide, "WEBP", lossless=True), "lossless")
    add("lossless_alpha.webp", encoded(with_alpha, "WEBP", lossless=True, exact=True), "lossless")
    add("oriented_3.webp", encoded(wide, "WEBP", lossless=True, exif=exif(3)), "lossless")
    add("lossy.webp", encoded(wide, "WEBP", quality=80), "lossy")

    # Orientation 6 as other tools than Pillow store it; Pillow reads all but the last two.
    prefixed = exif(6)
    assert prefixed.startswith(b"Exif\0\0")
    bare = prefixed[6:]
    png = encoded(wide, "PNG")
    header, end = 33, len(png) - 12
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(wide, "PNG", exif=bare)))).convert("RGB")
    add("exif_with_prefix.png", png[:header] + png_chunk(b"eXIf", prefixed) + png[header:], "lossless", turned)
    add("exif_behind_pixels.png", png[:end] + png_chunk(b"eXIf", bare) + png[end:], "lossless", turned)
    add("exif_in_text.png", png[:header] + raw_profile(prefixed) + png[header:], "lossless", turned)
    lossless_chunk = encoded(wide, "WEBP", lossless=True)[12:]
    exif_flag, animation_flag, alpha_flag = 0x08, 0x02, 0x10
    prefixed_webp = extended_webp(wide.size, exif_flag, lossless_chunk, webp_chunk(b"EXIF", prefixed))
    add("exif_with_prefix.webp", prefixed_webp, "lossless", turned)

    # The first frame of an animation stands at its place on a canvas that is transparent, as browsers show it, whatever
    # background the file suggests.
    small = drawing(30, 20)
    faint = small.copy()
    faint.putalpha(Image.fromarray(np.arange(600).reshape(20, 30).astype(np.uint8)))
    small_chunk = encoded(small, "WEBP", lossless=True)[12:]
    faint_chunk = encoded(faint, "WEBP", lossless=True, exact=True)[12:]
    other_chunk = encoded(noise(30, 20, 5), "WEBP", lossless=True)[12:]
    white = webp_chunk(b"ANIM", b"\xff\xff\xff\xff\0\0")
    for name, flags, first_chunk in [
        ("animated", animation_flag, small_chunk),
        ("animated_alpha", animation_flag | alpha_flag, faint_chunk),
    ]:
        frames = [webp_frame(first_chunk, (10, 16), small.size), webp_frame(other_chunk, (0, 0), small.size)]
        animated = extended_webp((61, 47), flags, white, *frames)
        add(f"{name}.webp", animated, "lossless")

    add("full_chroma.jpg", encoded(wide, "JPEG", quality=92, subsampling=0), "lossless")
    add("half_chroma.jpg", encoded(wide, "JPEG", quality=85, subsampling=2), "lossless")
    add("progressive.jpg", encoded(wide, "JPEG", quality=85, progressive=True), "lossless")
    add("grey.jpg", encoded(wide.convert("L"), "JPEG", quality=90), "lossless")
    add("cmyk.jpg", encoded(wide.convert("CMYK"), "JPEG", quality=92), "lossless")
    # Each kind of JPEG is in make_jpeg_fixtures.py.
    for orientation in range(2, 9):
        content = encoded(wide, "JPEG", quality=92, subsampling=0, exif=exif(orientation))
        add(f"oriented_{orientation}.jpg", content, "lossless")

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

    index = {"pillow": PIL.__version__, "size": SIZE, "images": entries, "patterns": large}
    (OUT / "expected.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
