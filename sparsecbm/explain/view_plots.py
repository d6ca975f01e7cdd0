"""The pages' pictures as matplotlib figures, for notebooks and papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsecbm._base.errors import InputError
from sparsecbm.explain.ledger import Ledgers
from sparsecbm.explain.plots import MINUS, PLUS, SOFT, _short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from PIL.Image import Image


def plot_class_weights(ledgers: Ledgers, max_concepts: int = 40, max_classes: int = 40, ax: Axes | None = None) -> Axes:
    """Draw the clustered class x concept weights; see `sparsecbm.explain.views.weight_map`."""
    from sparsecbm.explain.views import weight_map

    made = weight_map(ledgers, max_concepts, max_classes)
    ax = ax or _axes(2.2 + 0.2 * len(made.concepts), 1.8 + 0.2 * len(made.classes))
    limit = float(abs(made.weights).max()) or 1.0
    shown = ax.imshow(made.weights, cmap=_diverging(), vmin=-limit, vmax=limit, aspect="equal")
    ax.set_xticks(range(len(made.concepts)), [_short(n, 24) for n in made.concepts], rotation=90, parse_math=False)
    ax.set_yticks(range(len(made.classes)), [_short(n, 24) for n in made.classes], parse_math=False)
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(shown, ax=ax, shrink=0.6, label="weight × typical activation", pad=0.02)
    return ax


def plot_concept_usage(ledgers: Ledgers, k: int = 30, ax: Axes | None = None) -> Axes:
    """Draw in what share of the images each of the `k` most used concepts is active."""
    from sparsecbm.explain.views import concept_usage

    made = concept_usage(ledgers)[:k]
    ax = ax or _axes(7, 0.6 + 0.24 * len(made))
    places = range(len(made))
    ax.barh(places, [row.share for row in made], color=PLUS, height=0.7)
    ax.set_yticks(places, [_short(row.concept, 34) for row in made], parse_math=False)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("images in which the concept is active")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def plot_neighbourhood(
    concept: str, names: Sequence[str], vectors: ArrayLike, k: int = 10, ax: Axes | None = None
) -> Axes:
    """Draw the concepts nearest to one; see `sparsecbm.explain.views.neighbours`."""
    from sparsecbm.explain.views import neighbours

    made = neighbours(concept, names, vectors, k)
    ax = ax or _axes(6, 0.9 + 0.26 * len(made))
    ax.hlines(range(len(made)), 0, [value for _, value in made], color=SOFT, linewidth=1.5)
    ax.plot([value for _, value in made], range(len(made)), "o", color=PLUS)
    ax.set_yticks(range(len(made)), [_short(name, 34) for name, _ in made], parse_math=False)
    ax.invert_yaxis()
    ax.set_xlabel("cosine")
    ax.set_title(f"nearest to {concept}", loc="left", parse_math=False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return ax


def plot_coactivation(ledgers: Ledgers, max_concepts: int = 30, ax: Axes | None = None) -> Axes:
    """Draw which concepts are active in the same images; see `sparsecbm.explain.views.coactivation`."""
    from sparsecbm.explain.views import coactivation

    made = coactivation(ledgers, max_concepts)
    if not made.concepts:
        raise InputError("fewer than two concepts are active in some images and not in others: nothing to compare")
    side = 2.2 + 0.2 * len(made.concepts)
    ax = ax or _axes(side + 1, side)
    shown = ax.imshow(made.phi, cmap=_diverging(), vmin=-1, vmax=1)
    names = [_short(name, 24) for name in made.concepts]
    ax.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(shown, ax=ax, shrink=0.6, label="correlation of being active", pad=0.02)
    return ax


def plot_top_images(ledgers: Ledgers, concept: str, images: Sequence[Image], k: int = 8) -> Figure:
    """Draw the pictures that activate a concept most.

    Parameters
    ----------
    ledgers : Ledgers
    concept : str
    images : sequence of PIL.Image.Image
        Indexed as the ledgers are.
    k : int
        Pictures drawn.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window.
    """
    from matplotlib.figure import Figure

    from sparsecbm.explain.views import top_images

    made = top_images(ledgers, concept, k)
    if not made:
        raise InputError(f"concept {concept!r} is active in none of these images")
    figure = Figure(figsize=(1.6 * len(made), 2.1), layout="constrained")
    for place, (i, value) in zip(figure.subplots(1, len(made), squeeze=False).flat, made):
        place.imshow(images[i], interpolation="nearest" if max(images[i].size) <= 128 else "antialiased")
        place.set_axis_off()
        place.set_title(f"{value:.2f}", fontsize="small")
    figure.suptitle(concept, x=0.01, ha="left", fontsize="medium", parse_math=False)
    return figure


def plot_sankey(
    ledgers: Ledgers, classes: Sequence[str | int] | None = None, concepts_per_class: int = 4, ax: Axes | None = None
) -> Axes:
    """Draw what flows from concepts to classes; see `sparsecbm.explain.views.flows`."""
    from matplotlib.patches import PathPatch, Rectangle
    from matplotlib.path import Path

    from sparsecbm.explain.sankey import LEFT, NODE, RIGHT, sankey
    from sparsecbm.explain.views import flows

    made = sankey(flows(ledgers, classes, concepts_per_class=concepts_per_class))
    ax = ax or _axes(made.width / 90, made.height / 90)
    x0, x1, middle = LEFT + NODE, RIGHT, (LEFT + NODE + RIGHT) / 2
    curve = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    for number, link in enumerate(made.links):
        a, b, t = link.y0, link.y1, link.thickness
        upper = [(x0, a), (middle, a), (middle, b), (x1, b)]
        lower = [(x1, b + t), (middle, b + t), (middle, a + t), (x0, a + t)]
        band = Path([*upper, *lower, (x0, a)], curve)
        ax.add_patch(PathPatch(band, facecolor=PLUS, alpha=(0.28, 0.4, 0.22, 0.34)[number % 4], linewidth=0))
    for node in (*made.concepts, *made.classes):
        ax.add_patch(Rectangle((node.x, node.y), NODE, node.height, color="#5c6770", linewidth=0))
        x, side = (node.x - 7, "right") if node.side == "left" else (node.x + NODE + 7, "left")
        ax.text(x, node.y + node.height / 2, _short(node.name, 28), ha=side, va="center", fontsize=8, parse_math=False)
    ax.set(xlim=(0, made.width), ylim=(made.height, 0))
    ax.set_axis_off()
    return ax


def _axes(width: float, height: float) -> Axes:
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("sparsecbm", [MINUS, "#ffffff", PLUS])
