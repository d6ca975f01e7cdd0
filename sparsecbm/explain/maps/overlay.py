"""Maps as pictures: colour where a line comes from, over what the encoder saw."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from sparsecbm.explain.lines import Account, Place

if TYPE_CHECKING:
    from PIL.Image import Image

PLUS, MINUS = (0, 190, 165), (240, 90, 20)
_STRONGEST = 215  # of 255: the strongest cell lets a little of the picture through


def overlay(place: Place) -> Image:
    """Return the cells of a map as an RGBA picture of as many pixels: strong where much comes from, clear elsewhere."""
    from PIL import Image

    grid = place.grid
    strength = np.abs(grid) / (float(np.abs(grid).max()) or 1.0)
    pixels = np.where(grid[..., None] >= 0, PLUS, MINUS).astype(np.uint8)
    alpha = (strength * _STRONGEST).round().astype(np.uint8)
    return Image.fromarray(np.dstack([pixels, alpha]), "RGBA")


def overlay_uri(place: Place) -> str:
    """Return `overlay` as a data URI of a few hundred bytes."""
    buffer = io.BytesIO()
    overlay(place).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def laid_over(picture: Image | None, place: Place, size: int) -> Image:
    """Return a picture (grey where there is none), `size` pixels wide, under the cells of a map."""
    from PIL import Image

    rows, columns = place.grid.shape
    shape = (size, size * rows // columns) if picture is None else (size, round(size * picture.height / picture.width))
    ground = Image.new("RGB", shape, "#888888") if picture is None else picture.convert("RGB")
    smooth = Image.Resampling.NEAREST if max(ground.size) <= size // 2 else Image.Resampling.BICUBIC
    # Less colour, so that the map's own is what is seen.
    ground = ground.resize(shape, smooth)
    ground = Image.blend(ground, ground.convert("L").convert("RGB"), 0.5)
    cells = overlay(place).resize(shape, Image.Resampling.BILINEAR)
    ground.paste(cells, (0, 0), cells)
    return ground


def said(place: Place) -> str:
    """In words: how much of a line lies in the picture, and how much has no place."""
    return f"in the picture {place.placed:+.2f}, no place {place.rest:+.2f}".replace("-", "\N{MINUS SIGN}")


def map_sheet(account: Account, size: int = 192, columns: int = 4) -> Image:
    """Lay out the picture and the map of every line of an account, each under what it says.

    Parameters
    ----------
    account : Account
        With maps; see `Ledger.lines`.
    size : int
        Width of each picture in pixels.
    columns : int
        Pictures in a row.
    """
    from PIL import Image, ImageDraw, ImageFont

    assert account.place is not None
    title = f"{account.target}{'' if account.against is None else f' rather than {account.against}'}"
    tiles = [(f"{title}: {account.score:+.2f}", account.place)]
    tiles += [(f"{line.name} {line.value:+.2f}", line.place) for line in account.lines if line.place is not None]
    plain = Place(np.zeros_like(account.place.grid), 0.0)
    height, gap, words = laid_over(account.picture, plain, size).height, 12, 36
    columns = min(columns, len(tiles) + 1)
    rows = -(-(len(tiles) + 1) // columns)
    sheet = Image.new("RGB", (columns * (size + gap) + gap, rows * (height + words + gap) + gap), "white")
    draw, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(13), ImageFont.load_default(11)
    for k, (name, place) in enumerate([(account.source or "the picture", plain), *tiles]):
        x, y = gap + (k % columns) * (size + gap), gap + (k // columns) * (height + words + gap)
        whole = account.picture if k == 0 else None
        tile = whole.convert("RGB").resize((size, height)) if whole else laid_over(account.picture, place, size)
        sheet.paste(tile, (x, y + words))
        draw.text((x, y), _fitting(name, large, size), "#1d2327", large)
        if k:
            # The built-in font has no minus sign.
            draw.text((x, y + 17), said(place).replace("\N{MINUS SIGN}", "-"), "#5c6770", small)
    return sheet


def _fitting(text: str, font, width: int) -> str:  # type: ignore[no-untyped-def]
    # The built-in font knows Latin letters; what it does not know it draws as a box.
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text
