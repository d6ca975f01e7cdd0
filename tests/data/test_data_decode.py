"""Pictures with unreadable metadata are pictures; of the metadata the orientation alone is read."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from sparsecbm.data.decode import UndecodableError, decode_image

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about what is broken here

PICTURE = Image.fromarray(
    np.kron(np.random.default_rng(0).integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
)
UPRIGHT = (0x0112, 3, 1, b"\0\x06\0\0")  # orientation 6: a quarter turn


def save(form: str, **options: object) -> bytes:
    Image.init()
    if form not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {form}")
    handle = io.BytesIO()
    PICTURE.save(handle, form, **options)
    return handle.getvalue()


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF with the given raw tags: number, type, count, value."""
    tags = b"".join(struct.pack(">HHI4s", *entry) for entry in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + tags + bytes(4)


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)
    )


def segment(marker: int, data: bytes) -> bytes:
    return bytes([255, marker]) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "TIFF lzw"])
def test_orientations_are_those_of_pillow(form: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if form.endswith("lzw") else {}
    data = save(form.split()[0], exif=tags, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(expected))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("metadata", "turned"),
    [
        (b"Exif\0\0\0\0\0\x08\0\x02\x01\x12\0\x03", False),  # a bad header
        (b"Exif\0\0", False),
        (b"Exif\0\0" + bytes(range(50)), False),
        (exif(UPRIGHT)[:-8], False),  # truncated within the tag
        (exif((0x0112, 7, 4, b"\0\x06\0\0")), False),  # the orientation itself of an odd type
        (exif((0x0112, 5, 1, b"\0\0\0\x08")), False),
        (exif((0x0112, 3, 1, b"\0\x63\0\0")), False),  # orientation 99
        (exif(UPRIGHT, (0x0100, 99, 1, bytes(4))), True),  # odd types beside the orientation
        (exif((0x010E, 0, 7, b"abcd"), UPRIGHT), True),
        (exif(UPRIGHT, (0x010E, 2, 2**31, b"\0\0\0\x50")), True),
        (exif(UPRIGHT, (0x8769, 4, 1, b"\xff\xff\xff\xff")), True),
        (exif(UPRIGHT, (0x8825, 2, 4, b"abc\0")), True),
        (exif((0x8769, 11, 1, b"\x7f\xc0\0\0"), UPRIGHT), True),
        (exif(UPRIGHT, (0x8769, 4, 1, b"\0\0\0\x08")), True),  # a directory that holds itself
        (exif(UPRIGHT, (34675, 7, 4, b"abcd")), True),
    ],
)
def test_no_exif_makes_a_picture_unreadable(form: str, metadata: bytes, turned: bool) -> None:
    assert decode_image(save(form, exif=metadata)).size == ((48, 72) if turned else (72, 48))


@pytest.mark.parametrize(
    ("extra", "turned"),
    [
        (chunk(b"iCCP", b"x\0\0no zlib"), False),
        (chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2 * 10**6))), False),
        (chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 * 10**6))), False),
        (chunk(b"tEXt", b"k\0" + bytes(900_000)) * 75, False),
        (chunk(b"tEXt", b"k\0v", crc=1), False),
        (chunk(b"pHYs", b"\0") + chunk(b"gAMA", b"") + chunk(b"cHRM", b"1") + chunk(b"sRGB", b""), False),
        (chunk(b"acTL", b"1") + chunk(b"fcTL", b"1"), False),
        (chunk(b"eXIf", exif(UPRIGHT)[6:], crc=1), True),
        (chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'), True),
    ],
)
def test_no_chunk_beside_the_pixels_makes_a_png_unreadable(extra: bytes, turned: bool) -> None:
    png = save("PNG")
    picture = decode_image(png[:33] + extra + png[33:])
    expected = PICTURE.transpose(Image.Transpose.ROTATE_270) if turned else PICTURE
    assert np.array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize(
    "extra",
    [
        segment(0xE2, b"MPF\0" + bytes(range(30))),
        segment(0xE2, b"ICC_PROFILE\0\x01\x05abc"),
        segment(0xE0, b"JFIF\0"),
        segment(0xEE, b"Adobe"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\1"),
        segment(0xE1, b"Exif\0\0MM"),
    ],
)
def test_no_segment_beside_the_pixels_makes_a_jpeg_unreadable(extra: bytes) -> None:
    jpeg = save("JPEG")
    assert np.array_equal(np.asarray(decode_image(jpeg[:2] + extra + jpeg[2:])), np.asarray(decode_image(jpeg)))


@pytest.mark.parametrize("kind", [1, 2, 5, 13, 99])
@pytest.mark.parametrize("tag", [270, 700])
def test_no_tag_beside_the_pixels_makes_a_tiff_unreadable(tag: int, kind: int) -> None:
    tags = Image.Exif()
    tags[0x0112], tags[tag] = 6, b"abcdef" if tag == 700 else "abcdef"
    tiff = save("TIFF", exif=tags)
    at = tiff.index(struct.pack("<H", tag), struct.unpack_from("<I", tiff, 4)[0] + 2)
    broken = tiff[:at] + struct.pack("<HHII", tag, kind, 6, 2**32 - 1) + tiff[at + 12 :]
    assert decode_image(broken).size == (48, 72)


def test_an_avif_with_broken_exif_is_read() -> None:
    tags = Image.Exif()
    tags[0x010E] = "x"
    avif = save("AVIF", exif=tags)
    assert b"MM\0*" in avif
    assert decode_image(avif.replace(b"MM\0*", bytes(4))).size == (72, 48)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_what_is_cut_short_is_no_picture(form: str) -> None:
    data = save(form)
    for end in (40, 200, len(data) // 2):
        with pytest.raises(UndecodableError):
            decode_image(data[:end])


def test_heic_is_told_its_plugin() -> None:
    with pytest.raises(UndecodableError, match="pillow-heif"):
        decode_image(struct.pack(">I4s4sI", 24, b"ftyp", b"heic", 0) + b"mif1heic" + bytes(40))
