"""Encoded bytes to an upright RGB picture, or one clear error."""

from __future__ import annotations

import contextlib
import re
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.untrusted import is_bomb, read_bytes

MAX_PICTURE_BYTES = 512 * 2**20
"""Largest encoded picture that is read."""

# What photos come in. Not all that Pillow opens: it hands EPS to an interpreter of PostScript, and fetches previews of
# formats for which it has only stubs from whatever handler is registered.
FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG",
    "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM",
)  # fmt: skip


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture of each EXIF orientation is turned upright."""

# Of TIFF 6.0 and its technical notes: sizes, colours, compression, strips and tiles, the orientation.
_PIXEL_TAGS = {*range(254, 260), 262, 266, 273, 274, *range(277, 280), 284, 290, 291, 292, 293, 317, *range(320, 326)}
_PIXEL_TAGS |= {332, 333, 334, *range(336, 342), 347, *range(512, 522), *range(529, 533)}


class UndecodableError(Exception):
    """Why these bytes are not a picture; the caller adds which picture it was."""


def decode_image(data: bytes | None, max_pixels: int | None = None) -> Image.Image:
    """Decode to RGB, turned upright by its EXIF orientation.

    Of an animation the first frame is used; transparency is dropped (as CLIP's preprocessing does); 16-bit greys are
    scaled to 8 bits rather than clipped. Of the metadata the orientation alone is read, and nothing else in them can
    make a picture unreadable.

    Parameters
    ----------
    data : bytes or None
        The encoded picture; None for a missing one.
    max_pixels : int, optional
        Refuse pictures that declare more, before they are unpacked.

    Raises
    ------
    UndecodableError
        If the bytes are missing, truncated, no picture in one of `FORMATS`, or larger than `max_pixels`, or a
        decompression bomb: more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` pixels (179 million unless you change it), or
        more than 256 MiB of pixels and 100 times the size of the file.
    """
    if data is None:
        raise UndecodableError("there is no picture in this row")
    if not data:
        raise UndecodableError("it is empty (0 bytes)")
    try:
        try:
            return _decode(data, max_pixels)
        except (UndecodableError, Image.DecompressionBombError):
            raise
        except Exception as error:
            try:
                bare, exif = _without_metadata(data)
            except struct.error:
                raise error from None
            if bare == data:
                raise
            return _decode(bare, max_pixels, exif)
    except Image.DecompressionBombError as error:
        raise UndecodableError(f"it is too large ({error})") from error
    except Image.UnidentifiedImageError as error:
        if _is_heif(data):
            raise UndecodableError(
                "it is a HEIC photo, which Pillow reads only with a plugin: install pillow-heif, or save it as JPEG"
            ) from error
        raise UndecodableError(f"it is not a picture in any of the formats {', '.join(FORMATS)}") from error
    except UndecodableError:
        raise
    # Pillow's plugins raise many types on damaged data: OSError, SyntaxError, struct.error, zlib.error, IndexError ...
    except Exception as error:
        raise UndecodableError(str(error) or type(error).__name__) from error


def _decode(data: bytes, max_pixels: int | None, exif: bytes | None = None) -> Image.Image:
    """Decode; the orientation is that of `exif` if given."""
    Image.init()
    if _is_heif(data) and "HEIF" not in Image.OPEN:
        with contextlib.suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    # Pillow may be built without one of them, and then does not know its name.
    with Image.open(BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
        if max_pixels is not None and image.width * image.height > max_pixels:
            raise UndecodableError(f"it has {image.width * image.height:,} pixels: expected at most {max_pixels:,}")
        unfolded = image.width * image.height * max(len(image.getbands()), 3)
        if is_bomb(unfolded, len(data)):
            raise UndecodableError(
                f"it is too large ({len(data):,} bytes that would unfold to {unfolded:,}, a decompression bomb)"
            )
        turn = None
        if image.format == "TIFF":
            turn = _TURNS.get(_orientation(image.tag_v2))  # type: ignore[attr-defined]
            # Pillow would read all metadata there, and turn the picture by itself.
            image.load_end = lambda: None  # type: ignore[method-assign]
        image.load()
        if image.format != "TIFF":
            turn = _TURNS.get(_orientation(exif if exif is not None else image))
        upright = _to_rgb(image)
        return upright if turn is None else upright.transpose(turn)


def _orientation(source: Any) -> int:
    """EXIF orientation of a picture, of raw EXIF or of its tags; 1, upright, where it cannot be read."""
    try:
        if isinstance(source, bytes):
            tags = Image.Exif()
            tags.load(source)
        else:
            tags = source.getexif() if isinstance(source, Image.Image) else source
        value = tags.get(ExifTags.Base.Orientation, 1)
        return int(value[0] if isinstance(value, tuple) else value)
    except Exception:  # written by anybody: SyntaxError, struct.error, TypeError, KeyError, ...
        return 1


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1")


def _without_metadata(data: bytes) -> tuple[bytes, bytes | None]:
    """The same picture with its pixels alone, and its EXIF; unchanged where the format is not known.

    PNG keeps its critical chunks (https://www.w3.org/TR/png-3/#5Chunk-naming-conventions) and JPEG all segments but
    comments and application data other than JFIF's and Adobe's, which say what the colours are.
    """
    kept, exif = [], None
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        at = 8
        while at + 8 <= len(data):
            end, kind = at + 12 + int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if kind[:1].isupper() or kind == b"tRNS":
                kept.append(data[at:end])
            elif kind == b"eXIf":
                exif = data[at + 8 : end - 4]
            at = end
        return data[:8] + b"".join(kept), exif
    if data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):  # up to the pixels
            marker = data[at + 1]
            alone = marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8
            end = at + (1 if marker == 0xFF else 2 if alone else 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
            if marker == 0xE1 and data[at + 4 :].startswith(b"Exif\0\0"):
                exif = data[at + 4 : end]
            colours = marker in (0xE0, 0xEE) and end - at >= 16  # shorter, they say nothing
            if colours or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                kept.append(data[at:end])
            at = end
        return data[:2] + b"".join(kept) + data[at:], exif
    if data[:4] in (b"II*\0", b"MM\0*"):  # the tags of the first picture that say what its pixels are
        order = ">" if data.startswith(b"MM") else "<"
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, at)
        entries = [data[start : start + 12] for start in range(at + 2, at + 2 + 12 * count, 12)]
        kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in _PIXEL_TAGS]
        table = struct.pack(f"{order}H", len(kept)) + b"".join(kept)
        return data[:at] + table + bytes(4) + data[at + len(table) + 4 :], exif
    if data[4:8] == b"ftyp":  # AVIF: an item of an unknown type is passed over
        return re.sub(rb"(infe.{8})(?:Exif|mime)", rb"\1skip", data, flags=re.DOTALL), exif
    return data, exif


def read_picture(path: str | Path) -> bytes:
    """Encoded bytes of a picture file.

    Raises
    ------
    UndecodableError
        If it cannot be read, is a device or pipe, or is larger than `MAX_PICTURE_BYTES`.
    """
    try:
        return read_bytes(path, MAX_PICTURE_BYTES)
    except StoredFileError as error:
        reason = str(error).removeprefix(f"cannot read {str(path)!r}: ").removeprefix(f"{str(path)!r} ")
        raise UndecodableError(f"it cannot be read ({reason})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        # Pillow clips integers above 255 to white; a 16-bit scan would turn into an empty page.
        if image.mode.startswith("I;16") or grey.max(initial=0) > 255:
            grey = grey >> 8
        image = Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise UndecodableError("its pixels are floating-point numbers, whose range is unknown: save it as 8 or 16 bit")
    return image.convert("RGB")
