"""Ledgers as matplotlib pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparsecbm._base.errors import InputError
from sparsecbm._base.extras import require
from sparsecbm.explain.html import short
from sparsecbm.explain.lines import Account

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image


PLUS, MINUS, SOFT = "#1f7a72", "#c2562c", "#9aa3a9"


def plot_ledger(account: Account, ax: Axes | None = None, max_name: int = 34) -> Axes:
    """Draw signed horizontal bars, the largest on top; the bias and the sum of what is left out are pale.

    Parameters
    ----------
    account : Account
        What to draw: `Ledger.lines`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of fitting height.
    max_name : int
        Longer concept names are cut to so many characters.
    """
    lines = account.lines
    if ax is None:
        require("matplotlib", "plots", "a plot")
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(7, 0.9 + 0.34 * len(lines)), layout="constrained")
    values = [line.value for line in lines]
    places = range(len(lines))
    colours = [(PLUS if value >= 0 else MINUS) for value in values]
    bars = ax.barh(places, values, color=colours, height=0.66)
    for bar, line in zip(bars, lines):
        bar.set_alpha(1.0 if line.kind == "concept" else 0.4)
    span = max(map(abs, values)) or 1.0
    for place, value in zip(places, values):
        ax.text(
            value + (0.02 if value >= 0 else -0.02) * span,
            place,
            f"{value:+.2f}".replace("-", "\N{MINUS SIGN}"),
            va="center",
            ha="left" if value >= 0 else "right",
            fontsize="small",
        )
    # parse_math off: a concept name may hold dollar signs and must be shown as it is.
    ax.set_yticks(places, [short(line.name, max_name) for line in lines], parse_math=False)
    for label, line in zip(ax.get_yticklabels(), lines):
        label.set_color("black" if line.kind == "concept" else SOFT)
    ax.invert_yaxis()
    ax.axvline(0, color="#30373c", linewidth=0.8)
    low, high = min(0.0, *values), max(0.0, *values)
    ax.set_xlim(low - (0.16 * (high - low) if low < 0 else 0), high + 0.16 * (high - low) or 1.0)
    ax.spines[["top", "right", "bottom", "left"]].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False)
    versus = "" if account.against is None else f" rather than {account.against}"
    sure = "" if account.probability is None else f" ({account.probability:.1%})"
    ax.set_title(f"{account.target}{versus}{sure}: score {account.score:.2f}", loc="left", parse_math=False)
    return ax


def plot_mapped_ledger(account: Account, columns: int = 5) -> Axes:
    """Draw a ledger, and under it what each line adds where in the picture; returns the axes of the bars.

    Parameters
    ----------
    account : Account
        With maps and a picture.
    columns : int
        Pictures in a row.
    """
    require("matplotlib", "plots", "a plot")
    import matplotlib.pyplot as plt

    from sparsecbm.explain.maps.overlay import laid_over, said

    shown = [(line.name, line.place) for line in account.lines if line.place is not None]
    shown = [("score", account.place), *shown]  # type: ignore[list-item]
    rows = -(-len(shown) // columns)
    bars = 0.9 + 0.34 * len(account.lines)
    figure = plt.figure(figsize=(10, bars + 2.3 * rows), layout="constrained")
    layout = figure.add_gridspec(rows + 1, columns, height_ratios=[bars, *[2.3] * rows])
    top = plot_ledger(account, ax=figure.add_subplot(layout[0, :]))
    for place, (name, where) in enumerate(shown):
        ax = figure.add_subplot(layout[1 + place // columns, place % columns])
        ax.imshow(laid_over(account.picture, where, 160))
        ax.set_title(f"{short(name, 22)}\n{said(where)}", fontsize="small", loc="left", parse_math=False)
        ax.set_axis_off()
    return top


def plot_ledgers(accounts: Sequence[Account], columns: int = 2) -> Figure:
    """Draw several ledgers beside each other.

    Parameters
    ----------
    accounts : sequence of Account
    columns : int
        Ledgers in a row.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window.

    Raises
    ------
    InputError
        If there is nothing to draw.
    """
    require("matplotlib", "plots", "a plot")
    from matplotlib.figure import Figure

    if not accounts:
        raise InputError("no images: there is no ledger to draw")
    columns = min(columns, len(accounts))
    rows = -(-len(accounts) // columns)
    height = 1.1 + 0.3 * max(len(account.lines) for account in accounts)
    figure = Figure(figsize=(6.6 * columns, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, account in zip(grid.flat, accounts):
        plot_ledger(account, ax=place, max_name=26)
    for place in grid.flat[len(accounts) :]:
        place.set_axis_off()
    return figure


def plot_explained_prediction(image: Image, account: Account) -> Figure:
    """Draw a picture beside its ledger: what was seen, and what each concept added.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    account : Account
        The lines of its ledger: `Ledger.lines`.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window; ``figure.savefig(path)`` writes it.
    """
    require("matplotlib", "plots", "a plot")
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    width, height = 10.0, 4.2
    figure = Figure(figsize=(width, height), facecolor="white")
    side = (height - 0.6) / height
    left = figure.add_axes((0.3 / width, 0.3 / height, side * height / width, side))
    shown = left.imshow(
        image, interpolation="nearest" if max(image.size) <= 128 else "antialiased", extent=_square_extent(image)
    )
    left.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    left.set_axis_off()
    corners = FancyBboxPatch((0, 0), 1, 1, boxstyle="round,pad=0,rounding_size=0.04", transform=left.transData)
    shown.set_clip_path(corners)
    names = 0.30
    start = (0.3 + side * height + 0.5) / width
    right = figure.add_axes(
        (start + names * (1 - start), 0.42 / height, (1 - names) * (1 - start) - 0.03, 1 - 1.5 / height)
    )
    plot_ledger(account, ax=right, max_name=28)
    right.set_title("", loc="left")
    for label in right.get_yticklabels():
        label.set_fontsize(11)
    top = 1 - 0.42 / height
    head = account.target if account.against is None else f"{account.target} rather than {account.against}"
    title = figure.text(start, top, short(head, 44), fontsize=17, weight="bold", va="center", parse_math=False)
    if account.probability is not None:
        box = title.get_window_extent()
        edge = figure.transFigure.inverted().transform((box.x1, 0))[0]
        figure.text(edge + 0.012, top, f"{account.probability:.1%}", fontsize=15, color=SOFT, va="center")
    under = f"score {account.score:.2f} = bias + one contribution a concept"
    figure.text(start, top - 0.32 / height, under, fontsize=10.5, color="#5c6770", va="center")
    return figure


def _square_extent(image: Image) -> tuple[float, float, float, float]:
    """Place a picture in the unit square, filling it: the longer side is cut off evenly."""
    w, h = image.size
    across, up = max(1.0, w / h), max(1.0, h / w)
    return (0.5 - across / 2, 0.5 + across / 2, 0.5 - up / 2, 0.5 + up / 2)
