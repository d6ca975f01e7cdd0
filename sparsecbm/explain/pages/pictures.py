"""Pictures inside a page: data URIs small enough to keep one file, sharp enough to read."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 288
"""Longest side kept, in pixels: twice the width at which the report shows a picture."""


class InlinePicture(NamedTuple):
    """A picture as a data URI, with what the page needs to show it well."""

    uri: str
    width: int
    height: int
    pixelated: bool


def inline_picture(image: Image, max_side: int = MAX_SIDE) -> InlinePicture:
    """Encode a picture as a data URI.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; shown on white where transparent.
    max_side : int
        Larger pictures are reduced to this, in pixels.

    Returns
    -------
    InlinePicture
        PNG for small pictures, whose pixels must stay as they are; JPEG for photographs. ``pixelated`` asks the page to
        enlarge without blurring.
    """
    from PIL import Image as Pillow

    if image.mode in ("RGBA", "LA", "P"):
        layers = image.convert("RGBA")
        ground = Pillow.new("RGBA", layers.size, "white")
        image = Pillow.alpha_composite(ground, layers)
    image = image.convert("RGB")
    small = max(image.size) <= 128
    if max(image.size) > max_side:
        image = image.copy()
        image.thumbnail((max_side, max_side), Pillow.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=88)
    kind = "png" if small else "jpeg"
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return InlinePicture(f"data:image/{kind};base64,{data}", image.width, image.height, small)
