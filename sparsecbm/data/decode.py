"""Encoded bytes to an upright RGB picture, or one clear error."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.untrusted import is_bomb, read_bytes

MAX_PICTURE_BYTES = 512 * 2**20
"""Largest encoded picture that is read."""

# What photos come in. Not all that Pillow opens: it hands EPS to an interpreter of PostScript, and fetches previews of
# formats for which it has only stubs from whatever handler is registered.
FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG",
    "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM",
)  # fmt: skip


class UndecodableError(Exception):
    """Why these bytes are not a picture; the caller adds which picture it was."""


def decode_image(data: bytes | None, max_pixels: int | None = None) -> Image.Image:
    """Decode to RGB, turned upright by its EXIF orientation.

    Of an animation the first frame is used; transparency is dropped (as CLIP's preprocessing does); 16-bit greys are
    scaled to 8 bits rather than clipped.

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
        Image.init()
        # Pillow may be built without one of them, and then does not know its name.
        with Image.open(BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise UndecodableError(f"it has {image.width * image.height:,} pixels: expected at most {max_pixels:,}")
            unfolded = image.width * image.height * max(len(image.getbands()), 3)
            if is_bomb(unfolded, len(data)):
                raise UndecodableError(
                    f"it is too large ({len(data):,} bytes that would unfold to {unfolded:,}, a decompression bomb)"
                )
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise UndecodableError(f"it is too large ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise UndecodableError(f"it is not a picture in any of the formats {', '.join(FORMATS)}") from error
    except UndecodableError:
        raise
    # Pillow's plugins raise many types on damaged data: OSError, SyntaxError, struct.error, zlib.error, IndexError ...
    except Exception as error:
        raise UndecodableError(str(error) or type(error).__name__) from error


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
