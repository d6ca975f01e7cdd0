"""A Sankey diagram from concepts to classes: laid out here, drawn as SVG or by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsecbm.explain.views import Flow

WIDTH, NODE, GAP, BAND = 760.0, 10.0, 7.0, 34.0
LEFT, RIGHT = 190.0, 570.0


@dataclass(frozen=True)
class Node:
    """A bar: name, and where it stands (x, top y, height)."""

    name: str
    x: float
    y: float
    height: float
    side: str


@dataclass(frozen=True)
class Link:
    """A band between two bars: its four corners' heights and its thickness."""

    concept: str
    target: str
    share: float
    y0: float
    y1: float
    thickness: float

    @property
    def path(self) -> str:
        """The band as an SVG path."""
        x0, x1 = LEFT + NODE, RIGHT
        middle = (x0 + x1) / 2
        a, b, t = self.y0, self.y1, self.thickness
        return (
            f"M{x0:.1f} {a:.1f}C{middle:.1f} {a:.1f} {middle:.1f} {b:.1f} {x1:.1f} {b:.1f}"
            f"V{b + t:.1f}C{middle:.1f} {b + t:.1f} {middle:.1f} {a + t:.1f} {x0:.1f} {a + t:.1f}Z"
        )


@dataclass(frozen=True)
class Sankey:
    """A laid out diagram; `_repr_svg_` shows it in a notebook."""

    concepts: tuple[Node, ...]
    classes: tuple[Node, ...]
    links: tuple[Link, ...]
    width: float
    height: float

    def to_svg(self) -> str:
        """Return a self-contained SVG document."""
        from sparsecbm.explain.html import svg_file

        return svg_file("sankey", self, "What flows from concepts to classes")

    def _repr_svg_(self) -> str:
        return self.to_svg()


def sankey(flows: Sequence[Flow]) -> Sankey:
    """Lay out a Sankey diagram.

    Every class is a bar cut by the shares of its concepts; concepts stand in the mean order of their classes, which
    keeps bands from crossing more than they must.

    Parameters
    ----------
    flows : sequence of Flow
        See `sparsecbm.explain.views.flows`.
    """
    targets = list(dict.fromkeys(flow.target for flow in flows))
    place = {name: k for k, name in enumerate(targets)}
    weight: dict[str, float] = {}
    moment: dict[str, float] = {}
    for flow in flows:
        weight[flow.concept] = weight.get(flow.concept, 0.0) + flow.share
        moment[flow.concept] = moment.get(flow.concept, 0.0) + flow.share * place[flow.target]
    concepts = sorted(weight, key=lambda name: moment[name] / weight[name])
    total: dict[str, float] = {}
    for flow in flows:
        total[flow.target] = total.get(flow.target, 0.0) + flow.share
    left_height = sum(max(3.0, BAND * weight[name]) for name in concepts)
    right_height = sum(max(3.0, BAND * total[name]) for name in targets)
    # Labels need room: a bar's slot is never lower than a line of text.
    slots_left = [max(13.0, BAND * weight[name] + GAP) for name in concepts]
    slots_right = [max(13.0, BAND * total[name] + GAP) for name in targets]
    height = max(sum(slots_left), sum(slots_right), left_height, right_height) + 8.0

    def column(names: Sequence[str], slots: Sequence[float], sizes: dict[str, float], x: float, side: str):
        spare = (height - 8.0 - sum(slots)) / max(len(names), 1)
        y, made = 4.0, {}
        for name, slot in zip(names, slots):
            bar = max(1.5, BAND * sizes[name])
            made[name] = Node(name, x, y + (slot + spare - bar) / 2, bar, side)
            y += slot + spare
        return made

    left = column(concepts, slots_left, weight, LEFT, "left")
    right = column(targets, slots_right, total, RIGHT, "right")
    order = {name: k for k, name in enumerate(concepts)}
    top_left, top_right = {n: node.y for n, node in left.items()}, {n: node.y for n, node in right.items()}
    links = []
    starts: dict[tuple[str, str], float] = {}
    for flow in sorted(flows, key=lambda flow: place[flow.target]):
        starts[flow.concept, flow.target] = top_left[flow.concept]
        top_left[flow.concept] += BAND * flow.share
    for flow in sorted(flows, key=lambda flow: order[flow.concept]):
        y0, y1 = starts[flow.concept, flow.target], top_right[flow.target]
        links.append(Link(flow.concept, flow.target, flow.share, y0, y1, BAND * flow.share))
        top_right[flow.target] += BAND * flow.share
    return Sankey(tuple(left.values()), tuple(right.values()), tuple(links), WIDTH, height)
