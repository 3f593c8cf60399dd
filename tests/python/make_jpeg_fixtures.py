"""Writes the JPEG files under tests/fixtures/jpeg and what Pillow decodes from them.

Run with Python 3.11 or later, Pillow, numpy and cjpeg (Debian's libjpeg-turbo-progs):

    python tests/python/make_jpeg_fixtures.py

The files in the repository were made with Pillow 13.0.0 (libjpeg-turbo 3.2.0) and cjpeg 2.1.5.

Every image is drawn here. expected.json lists the files that must decode, each with its size and the SHA-256 of the
upright RGB bytes (rows from the top) that Pillow gives, and the files that must be refused, each with a part of the reason.
"""

import hashlib
import io
import json
import struct
import subprocess
import tempfile
from pathlib import Path

import PIL
from PIL import Image, ImageOps

from make_imaging_fixtures import drawing

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "jpeg"
# Luma's sampling factors beside chroma's 1x1, then some in which the components differ in other ways.
SAMPLINGS = {
    "444": "1x1",
    "422": "2x1",
    "420": "2x2",
    "440": "1x2",
    "411": "4x1",
    "410": "4x2",
    "mixed": "2x2,1x2,2x1",
    "chroma_larger": "1x1,2x2,2x2",
}
SCANS = {
    "one_each": "0;\n1;\n2;\n",
    "luma_then_chroma": "0;\n1 2;\n",
    "chroma_first": "2;\n1;\n0;\n",
}
END = b"\xff\xd9"


def cjpeg(image, *options, scans=None):
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "image.ppm")
        image.save(source)
        if scans:
            script = Path(directory, "scans")
            script.write_text(scans)
            options = (*options, "-scans", script)
        return subprocess.run(["cjpeg", *options, source], check=True, stdout=subprocess.PIPE).stdout


def pillow(image, **options):
    target = io.BytesIO()
    image.save(target, "JPEG", **options)
    return target.getvalue()


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def insert(jpeg, *segments):
    """The segments right behind the start of the file."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def adobe(transform):
    return segment(0xEE, b"Adobe" + bytes([0, 100, 0, 0, 0, 0, transform]))


def exif(order, kind, value, thumbnail=None):
    """A TIFF header, a directory with the orientation, and one of a thumbnail with another."""
    form = "<" if order == b"II" else ">"

    def directory(value, next_directory):
        packed = struct.pack(form + "I", value) if kind == 4 else struct.pack(form + "HH", value, 0)
        return struct.pack(form + "HHHI", 1, 0x0112, kind, 1) + packed + struct.pack(form + "I", next_directory)

    first = directory(value, 26 if thumbnail else 0)
    return order + struct.pack(form + "HI", 42, 8) + first + (directory(thumbnail, 0) if thumbnail else b"")


def scan_starts(jpeg):
    """Where each scan's header begins; entropy-coded data holds no such marker."""
    return [at for at in range(len(jpeg) - 1) if jpeg[at : at + 2] == b"\xff\xda"]


def accepted():
    image = drawing(61, 47)
    grey = image.convert("L")
    for name, factors in SAMPLINGS.items():
        options = ("-quality", "85", "-sample", factors)
        yield f"baseline_{name}", cjpeg(image, *options)
        yield f"progressive_{name}", cjpeg(image, *options, "-progressive")
        yield f"restarts_{name}", cjpeg(image, *options, "-restart", "2B")
        for order, scans in SCANS.items():
            yield f"{order}_{name}", cjpeg(image, *options, scans=scans)
    for width, height in [(1, 1), (7, 3), (8, 8), (9, 17), (33, 16)]:
        small = drawing(width, height)
        yield f"sides_{width}x{height}", cjpeg(small, "-sample", "2x2")
        yield f"sides_{width}x{height}_one_each", cjpeg(small, "-sample", "2x2", scans=SCANS["one_each"])
    yield "grey", cjpeg(image, "-grayscale")
    yield "grey_progressive", cjpeg(image, "-grayscale", "-progressive")
    yield "grey_sampled_2x2", cjpeg(image, "-grayscale", "-sample", "2x2")
    yield "rgb", cjpeg(image, "-rgb")
    yield "rgb_one_each", cjpeg(image, "-rgb", scans=SCANS["one_each"])

    plain = cjpeg(image, "-quality", "90", "-sample", "1x1")
    without_jfif = plain[:2] + plain[20:]
    assert plain[2:4] == b"\xff\xe0" and plain[20] == 0xFF
    yield "jfif_and_adobe_0", insert(plain, adobe(0))
    yield "jfif_and_adobe_1", insert(plain, adobe(1))
    yield "adobe_0", insert(without_jfif, adobe(0))
    yield "adobe_1", insert(without_jfif, adobe(1))
    yield "no_application_segment", without_jfif

    cmyk = pillow(image.convert("CMYK"), quality=92)
    marker = cmyk.index(b"Adobe") - 4
    assert cmyk[marker + 15] == 0
    yield "cmyk", cmyk
    yield "cmyk_without_marker", cmyk[:marker] + cmyk[marker + 16 :]
    yield "ycck", cmyk[: marker + 15] + b"\x02" + cmyk[marker + 16 :]
    yield "cmyk_sampled", pillow(image.convert("CMYK"), quality=92, subsampling=2)

    first = plain.index(b"\xff\xdb")
    yield "bytes_between_segments", plain[:first] + b"\0\0" + plain[first:]
    yield "fill_bytes_between_segments", plain[:first] + b"\xff\xff\xff" + plain[first:]
    yield "byte_before_the_end", plain[:-2] + b"\0" + END
    yield "zeros_behind_the_end", plain + bytes(500)
    yield "another_image_behind_the_end", plain + cjpeg(grey.resize((16, 16)))
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(3000))
    yield "colour_profile", insert(plain, profile)

    prefix = b"Exif\0\0"
    yield "exif_short_big_endian", insert(plain, segment(0xE1, prefix + exif(b"MM", 3, 6)))
    yield "exif_long", insert(plain, segment(0xE1, prefix + exif(b"II", 4, 6)))
    yield "exif_long_big_endian", insert(plain, segment(0xE1, prefix + exif(b"MM", 4, 8)))
    yield "exif_thumbnail_differs", insert(plain, segment(0xE1, prefix + exif(b"II", 3, 6, thumbnail=8)))
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    yield "exif_behind_others", insert(plain, xmp, profile, segment(0xE1, prefix + exif(b"II", 3, 3)))
    yield "exif_orientation_9", insert(plain, segment(0xE1, prefix + exif(b"II", 3, 9)))


def refused():
    image = drawing(96, 80)
    missing = "the file ends before the image does"
    kinds = {
        "baseline": cjpeg(image, "-quality", "90"),
        "restarts": cjpeg(image, "-quality", "90", "-restart", "1"),
        "progressive": cjpeg(image, "-quality", "90", "-progressive"),
        "one_each": cjpeg(image, "-quality", "90", scans=SCANS["one_each"]),
    }
    for kind, whole in kinds.items():
        start = scan_starts(whole)[0]
        for share in (50, 90):
            cut = start + (len(whole) - start) * share // 100
            yield f"{kind}_{share}_percent_ended", whole[:cut] + END, missing
            yield f"{kind}_{share}_percent", whole[:cut], missing
        yield f"{kind}_without_end", whole[:-2], missing
    one_each = kinds["one_each"]
    for scan, component in ((1, 2), (2, 3)):
        content = one_each[: scan_starts(one_each)[scan]] + END
        yield f"no_scan_of_component_{component}", content, f"no data for component {component}"
    restarts = kinds["restarts"]
    # Drops one restart interval and its marker.
    third, fourth = restarts.index(b"\xff\xd2"), restarts.index(b"\xff\xd3")
    yield "interval_missing", restarts[:third] + restarts[fourth:], "found marker 0xd3 instead of RST2"

    baseline = kinds["baseline"]
    frame = baseline.index(b"\xff\xc0")

    def with_frame(marker, precision=8):
        return baseline[: frame + 1] + bytes([marker]) + baseline[frame + 2 : frame + 4] + bytes([precision]) + baseline[frame + 5 :]

    yield "arithmetic", cjpeg(image, "-arithmetic"), "with arithmetic coding"
    yield "arithmetic_progressive", cjpeg(image, "-arithmetic", "-progressive"), "with arithmetic coding"
    yield "lossless", with_frame(0xC3), "with lossless coding"
    yield "hierarchical", with_frame(0xC5), "with hierarchical coding"
    yield "jpeg_ls", with_frame(0xF7), "with JPEG-LS coding"
    yield "bits_12", with_frame(0xC1, precision=12), "with 12 bits per sample"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    index = {"pillow": PIL.__version__, "accepted": [], "refused": []}
    for name, content in accepted():
        (OUT / f"{name}.jpg").write_bytes(content)
        image = Image.open(io.BytesIO(content))
        image.load()
        image = ImageOps.exif_transpose(image).convert("RGB")
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        index["accepted"].append({"file": f"{name}.jpg", "width": image.width, "height": image.height, "sha256": digest})
    for name, content, reason in refused():
        (OUT / f"{name}.jpg").write_bytes(content)
        index["refused"].append({"file": f"{name}.jpg", "reason": reason})
    (OUT / "expected.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
