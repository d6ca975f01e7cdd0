"""Pictures of a VAE: grids of samples and reconstructions, and learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm._base.extras import has
from sparsecbm._base.files import atomic_write

__all__ = ["picture_grid", "save_curves", "save_grid"]

_PAPER, _GAP = 255, 216


def picture_grid(
    images: np.ndarray, shape: tuple[int, int], *, columns: int | None = None, pair: bool = False
) -> np.ndarray:
    """Lay pictures out in a grid, dark strokes on light paper, separated by thin lines.

    Parameters
    ----------
    images : ndarray, shape (n, height * width)
        Intensities of the strokes, 0 to 1.
    shape : tuple of int
        (height, width).
    columns : int or None
        Pictures a row; about as many as rows by default.
    pair : bool
        Let every second row stand closer to the one above it.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
    """
    height, width = shape
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    scale = max(1, round(56 / max(height, width)))
    gap = 3
    cell_h, cell_w = height * scale + gap, width * scale + gap
    extra = (rows + 1) // 2 * 2 * gap if pair else 0
    grid = np.full((rows * cell_h + gap + extra, columns * cell_w + gap), _GAP, dtype=np.uint8)
    for number, image in enumerate(np.clip(images, 0, 1)):
        row, column = divmod(number, columns)
        top = gap + row * cell_h + (row // 2 * 2 * gap if pair else 0)
        left = gap + column * cell_w
        pixels = np.rint(_PAPER * (1 - image.reshape(height, width))).astype(np.uint8)
        grid[top : top + height * scale, left : left + width * scale] = pixels.repeat(scale, 0).repeat(scale, 1)
    return grid


def save_grid(
    path: str | Path, images: np.ndarray, shape: tuple[int, int], *, rows: Sequence[str] = (), **options: Any
) -> None:
    """Write :func:`picture_grid` as a PNG, with a word on each of its `rows`."""
    from PIL import Image, ImageDraw

    grid = Image.fromarray(picture_grid(images, shape, **options))
    if rows:
        pen = ImageDraw.Draw(grid)
        width = 12 + math.ceil(max(pen.textlength(text) for text in rows))
        plain, grid = grid, Image.new("L", (grid.width + width, grid.height), _PAPER)
        grid.paste(plain, (width, 0))
        pen = ImageDraw.Draw(grid)
        for number, text in enumerate(rows):
            pen.text((6, (number + 0.5) * grid.height / len(rows)), text, fill=0, anchor="lm")
    atomic_write(path, lambda handle: grid.save(handle, format="PNG", optimize=True))


COLOURS = ("#0b6e99", "#c2410c", "#f59e0b", "#7c3aed", "#4d7c0f", "#8a8f98")


def save_curves(
    path: str | Path,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    dashed: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    label: str = "nats",
    title: str = "",
) -> None:
    """Draw named curves of (epoch, value) pairs as a PNG; one without any is left out. Without matplotlib, nothing.

    A `dashed` curve has the colour of that with its name.
    """
    if not has("matplotlib"):
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(curves) > 2 else {}
    figure = Figure(figsize=(9.0 if beside else 6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for colour, (name, curve) in zip(COLOURS, curves.items()):
        if curve:
            axes.plot(*zip(*curve), color=colour, label=name)
        if dashed and dashed.get(name):
            axes.plot(*zip(*dashed[name]), color=colour, linestyle="--", linewidth=1)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if axes.lines:
        axes.legend(frameon=False, **beside)
    atomic_write(path, lambda handle: figure.savefig(handle, format="png", dpi=120))
