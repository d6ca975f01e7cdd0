"""Encoded bytes to an upright RGB picture, or one clear error."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps


class UndecodableError(Exception):
    """Why these bytes are not a picture; the caller adds which picture it was."""


def decode_image(data: bytes | None) -> Image.Image:
    """Decode to RGB, turned upright by its EXIF orientation.

    Of an animation the first frame is used; transparency is dropped (as CLIP's preprocessing does); 16-bit greys are
    scaled to 8 bits rather than clipped.

    Raises
    ------
    UndecodableError
        If the bytes are missing, truncated, no picture, or a decompression bomb (more than twice
        ``PIL.Image.MAX_IMAGE_PIXELS`` pixels).
    """
    if data is None:
        raise UndecodableError("there is no picture in this row")
    if not data:
        raise UndecodableError("it is empty (0 bytes)")
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise UndecodableError(f"it is too large ({error})") from error
    except Image.UnidentifiedImageError as error:
        raise UndecodableError("it is not a picture in any format that Pillow reads") from error
    except UndecodableError:
        raise
    # Pillow's plugins raise many types on damaged data: OSError, SyntaxError, struct.error, zlib.error, IndexError ...
    except Exception as error:
        raise UndecodableError(str(error) or type(error).__name__) from error


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
