"""Ledgers as matplotlib pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparsecbm._errors import InputError
from sparsecbm.explain.ledger import Ledger, Ledgers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from PIL.Image import Image

    from sparsecbm.explain.interventions import InterventionCurve

PLUS, MINUS, SOFT = "#1f7a72", "#c2562c", "#9aa3a9"


def plot_ledger(ledger: Ledger, k: int = 10, ax: Axes | None = None, max_name: int = 34) -> Axes:
    """Draw signed horizontal bars, the largest on top; the bias and the sum of what is left out are pale.

    Parameters
    ----------
    ledger : Ledger
        What to draw.
    k : int
        Concepts shown by name.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure of fitting height.
    max_name : int
        Longer concept names are cut to so many characters.

    Returns
    -------
    matplotlib.axes.Axes
    """
    lines = [(entry.concept, entry.contribution, True) for entry in ledger.top(k)]
    others, remainder = ledger.rest(k)
    if others:
        lines.append((f"{others} other concept{'s' if others > 1 else ''}", remainder, False))
    lines.append(("bias", ledger.bias, False))
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(7, 0.9 + 0.34 * len(lines)), layout="constrained")
    values = [value for _, value, _ in lines]
    places = range(len(lines))
    colours = [(PLUS if value >= 0 else MINUS) for value in values]
    bars = ax.barh(places, values, color=colours, height=0.66)
    for bar, (_, _, named) in zip(bars, lines):
        bar.set_alpha(1.0 if named else 0.4)
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
    ax.set_yticks(places, [_short(name, max_name) for name, _, _ in lines], parse_math=False)
    for label, (_, _, named) in zip(ax.get_yticklabels(), lines):
        label.set_color("black" if named else SOFT)
    ax.invert_yaxis()
    ax.axvline(0, color="#30373c", linewidth=0.8)
    low, high = min(0.0, *values), max(0.0, *values)
    ax.set_xlim(low - (0.16 * (high - low) if low < 0 else 0), high + 0.16 * (high - low) or 1.0)
    ax.spines[["top", "right", "bottom", "left"]].set_visible(False)
    ax.tick_params(left=False, bottom=False, labelbottom=False)
    versus = "" if ledger.against is None else f" rather than {ledger.against}"
    sure = "" if ledger.probability is None else f" ({ledger.probability:.1%})"
    ax.set_title(f"{ledger.target}{versus}{sure}: score {ledger.score:.2f}", loc="left", parse_math=False)
    return ax


def plot_ledgers(ledgers: Ledgers, k: int = 8, max_images: int = 6, columns: int = 2) -> Figure:
    """Draw several ledgers beside each other.

    Parameters
    ----------
    ledgers : Ledgers
    k : int
        Concepts shown by name in each.
    max_images : int
        The first so many are drawn.
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
    from matplotlib.figure import Figure

    shown = ledgers[:max_images]
    if not shown:
        raise InputError("no images: there is no ledger to draw")
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(6.6 * columns, rows * (1.1 + 0.3 * (k + 2))), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, ledger in zip(grid.flat, shown):
        plot_ledger(ledger, k=k, ax=place, max_name=26)
    for place in grid.flat[len(shown) :]:
        place.set_axis_off()
    return figure


CURVE_COLOURS = {"greedy": SOFT, "uncertainty": PLUS, "random": MINUS}


def plot_intervention_curves(curves: Sequence[InterventionCurve], ax: Axes | None = None, **style: object) -> Axes:
    """Draw accuracy against the number of corrected concepts, with two standard errors shaded.

    Parameters
    ----------
    curves : sequence of InterventionCurve
    ax : matplotlib Axes, optional
    **style
        For `matplotlib.axes.Axes.plot`.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for curve in curves:
        k = range(len(curve.accuracy))
        colour = CURVE_COLOURS.get(curve.order)
        ax.plot(k, curve.accuracy, **{"color": colour, "label": curve.order, "linewidth": 2.0, **style})
        error = 2 * curve.standard_error
        ax.fill_between(k, curve.accuracy - error, curve.accuracy + error, color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel="concepts set to their true value, per image", ylabel="accuracy")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, loc="lower right")
    return ax


def plot_explained_prediction(image: Image, ledger: Ledger, k: int = 8) -> Figure:
    """Draw a picture beside its ledger: what was seen, and what each concept added.

    Parameters
    ----------
    image : PIL.Image.Image
        The picture.
    ledger : Ledger
        Its ledger.
    k : int
        Concepts shown by name.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that belongs to no window; ``figure.savefig(path)`` writes it.
    """
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
    plot_ledger(ledger, k=k, ax=right, max_name=28)
    right.set_title("", loc="left")
    for label in right.get_yticklabels():
        label.set_fontsize(11)
    top = 1 - 0.42 / height
    head = ledger.target if ledger.against is None else f"{ledger.target} rather than {ledger.against}"
    title = figure.text(start, top, _short(head, 44), fontsize=17, weight="bold", va="center", parse_math=False)
    if ledger.probability is not None:
        box = title.get_window_extent()
        edge = figure.transFigure.inverted().transform((box.x1, 0))[0]
        figure.text(edge + 0.012, top, f"{ledger.probability:.1%}", fontsize=15, color=SOFT, va="center")
    under = f"score {ledger.score:.2f} = bias + one contribution a concept"
    figure.text(start, top - 0.32 / height, under, fontsize=10.5, color="#5c6770", va="center")
    return figure


def _square_extent(image: Image) -> tuple[float, float, float, float]:
    """Place a picture in the unit square, filling it: the longer side is cut off evenly."""
    w, h = image.size
    across, up = max(1.0, w / h), max(1.0, h / w)
    return (0.5 - across / 2, 0.5 + across / 2, 0.5 - up / 2, 0.5 + up / 2)


def _short(name: str, limit: int) -> str:
    return name if len(name) <= limit else name[: limit - 1].rstrip() + "…"


# -- global views ------------------------------------------------------------------------------------------------------


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
