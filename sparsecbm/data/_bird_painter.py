"""How a painted bird looks: shapes, colours, scenes and nuisance, drawn with Pillow.

A bird is drawn in its own coordinates (x towards the bill, y down, one unit a body length, as complex numbers) and
placed by one complex multiplication, which is rotation and scale at once. The canvas has twice the asked size and is
reduced at the end, which smooths the edges.

Every uniform draw of a picture comes from one block of fixed length, in which each part has its own place. So the same
generator paints the same pose, light and noise whatever the attributes are, and changing one attribute changes its own
region alone. Asked for the parts, it draws every shape a second time on a canvas of part numbers: what is drawn over is
gone from there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLE = 2
_POSE_DRAWS, _BIRD_DRAWS, _SCENE_DRAWS, _OCCLUDER_DRAWS = 16, 40, 80, 40

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (205, 38, 36),
    "yellow": (247, 209, 46),
    "black": (30, 29, 34),
    "blue": (44, 98, 208),
    "white": (247, 246, 240),
    "orange": (236, 122, 34),
    "grey": (140, 146, 152),
    "green": (52, 148, 62),
    "brown": (122, 76, 42),
}
LEG_COLOURS: dict[str, Colour] = {"yellow": (250, 200, 30), "red": (224, 52, 60), "black": (26, 25, 30)}
# Pixels of a 64-pixel picture for one body length.
SCALES: dict[str | None, float] = {"small": 17.5, None: 22.5, "large": 28.0}
_BODIES: tuple[Colour, ...] = ((168, 142, 112), (150, 128, 96), (120, 112, 104), (178, 160, 132), (134, 120, 84))
_BILLS: tuple[Colour, ...] = ((62, 56, 54), (92, 80, 70), (176, 140, 84))


def _points(*xy: tuple[float, float]) -> np.ndarray:
    return np.array([complex(x, y) for x, y in xy])


def _smooth(*xy: tuple[float, float], steps: int = 4) -> np.ndarray:
    """Closed Catmull-Rom curve through the points."""
    p1 = _points(*xy)
    p0, p2, p3 = np.roll(p1, 1), np.roll(p1, -1), np.roll(p1, -2)
    t = np.arange(steps)[None, :] / steps
    a, b, c, d = (p[:, None] for p in (p0, p1, p2, p3))
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return curve.ravel()


_HEAD = complex(0.40, -0.36)
_HEAD_RADIUS = 0.215


def _cap() -> np.ndarray:
    angles = np.linspace(np.deg2rad(172), np.deg2rad(352), 12)
    rim = _HEAD + 1.06 * _HEAD_RADIUS * np.exp(1j * angles)
    return np.concatenate([rim, _points((0.50, -0.42), (0.38, -0.43), (0.28, -0.39))])


_BODY = _smooth(
    (0.58, -0.28), (0.575, -0.05), (0.49, 0.16), (0.28, 0.30), (0.0, 0.325), (-0.26, 0.22), (-0.5, 0.06),
    (-0.53, -0.05), (-0.3, -0.17), (0.0, -0.28), (0.2, -0.42), (0.42, -0.5),
)  # fmt: skip
_BREAST = _smooth(
    (0.575, -0.24), (0.575, -0.05), (0.485, 0.15), (0.29, 0.285), (0.02, 0.31), (-0.24, 0.215), (-0.04, 0.13),
    (0.2, 0.06), (0.31, -0.1), (0.42, -0.2),
)  # fmt: skip
_WING = _smooth(
    (0.25, -0.17), (0.27, -0.02), (0.1, 0.11), (-0.22, 0.15), (-0.66, 0.1), (-0.45, -0.03), (-0.2, -0.15),
    (0.05, -0.23),
    steps=3,
)  # fmt: skip
_FEATHERS = (_points((-0.06, 0.08), (-0.56, 0.085)), _points((-0.1, 0.0), (-0.5, 0.04)))
_WING_BARS = (
    _points((0.13, -0.21), (0.2, -0.21), (0.12, 0.1), (0.04, 0.12)),
    _points((-0.1, -0.185), (-0.03, -0.2), (-0.1, 0.13), (-0.18, 0.14)),
)
_CROWN = _cap()
_CREST = _points(
    (0.54, -0.55), (0.38, -0.68), (0.14, -0.92), (0.20, -0.72), (0.02, -0.76), (0.12, -0.6), (-0.02, -0.56), (0.2, -0.4)
)
_MASK = _points((0.61, -0.37), (0.5, -0.42), (0.36, -0.42), (0.16, -0.36), (0.3, -0.3), (0.48, -0.28), (0.61, -0.32))
_BILL_SHAPES: dict[str | None, np.ndarray] = {
    None: _points((0.58, -0.41), (0.77, -0.34), (0.58, -0.30)),
    "long thin": _points((0.57, -0.405), (1.08, -0.335), (1.08, -0.315), (0.57, -0.315)),
    "thick": _points((0.52, -0.49), (0.66, -0.46), (0.82, -0.31), (0.52, -0.21)),
    "hooked": _points((0.56, -0.45), (0.74, -0.46), (0.86, -0.38), (0.88, -0.17), (0.77, -0.28), (0.56, -0.27)),
}
_TAIL_BASE, _TAIL_AXIS = complex(-0.44, -0.01), np.exp(1j * np.deg2rad(170))
_TAIL_SHAPES: dict[str | None, np.ndarray] = {
    None: _points((0.0, -0.08), (0.34, -0.09), (0.34, 0.09), (0.0, 0.08)),
    "long": _points((0.0, -0.08), (0.45, -0.07), (0.86, -0.045), (0.92, 0.0), (0.86, 0.045), (0.45, 0.07), (0.0, 0.08)),
    "forked": _points((0.0, -0.08), (0.56, -0.25), (0.26, 0.0), (0.56, 0.25), (0.0, 0.08)),
    "fanned": _points((0.0, -0.08), (0.3, -0.36), (0.44, -0.2), (0.48, 0.0), (0.44, 0.2), (0.3, 0.36), (0.0, 0.08)),
}
_TAIL_RAYS = _points((0.4, -0.22), (0.46, 0.0), (0.4, 0.22))
_LEGS = (_points((0.0, 0.27), (-0.03, 0.6)), _points((0.17, 0.26), (0.16, 0.6)))
_TOES = (_points((-0.07, 0.62), (0.07, 0.62)), _points((0.12, 0.62), (0.26, 0.62)))
_SPOTS = _points(
    (0.48, -0.12), (0.4, -0.03), (0.52, 0.02), (0.31, 0.08), (0.44, 0.1), (0.2, 0.16), (0.33, 0.2), (0.08, 0.2),
    (0.2, 0.26), (-0.03, 0.25),
)  # fmt: skip


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = colour
    return min(255, round(red * factor)), min(255, round(green * factor)), min(255, round(blue * factor))


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b))  # type: ignore[return-value]


PARTS = (
    "background",
    "body",
    "breast",
    "spots",
    "wings",
    "wing bars",
    "bill",
    "tail",
    "legs",
    "crown",
    "crest",
    "mask",
)
"""What a pixel can belong to; its number on the canvas of parts is the place in this list."""


class _Brush:
    """Draws bird-coordinate shapes on a canvas, and on one of part numbers if there is one."""

    def __init__(
        self, canvas: Image.Image, parts: Image.Image | None, centre: complex, turn: complex, flip: bool
    ) -> None:
        self.draws = [ImageDraw.Draw(on) for on in (canvas, parts) if on is not None]
        self.centre, self.turn, self.flip = centre, turn, flip
        self.unit = abs(turn)
        self.part = 0

    def of(self, part: str) -> _Brush:
        """Draw this part from here on."""
        self.part = PARTS.index(part)
        return self

    def inks(self, colour: Colour) -> Iterator[tuple[ImageDraw.ImageDraw, Colour | int]]:
        return zip(self.draws, (colour, self.part))

    def place(self, points: np.ndarray) -> list[float]:
        z = points * self.turn
        if self.flip:
            z = -np.conj(z)
        return (z + self.centre).view(np.float64).tolist()

    def shape(self, points: np.ndarray, fill: Colour, outline: Colour | None = None) -> None:
        xy = self.place(points)
        for draw, ink in self.inks(fill):
            draw.polygon(xy, fill=ink)
        for draw, ink in self.inks(outline) if outline is not None else ():
            draw.line(xy + xy[:2], fill=ink, width=1)

    def line(self, points: np.ndarray, fill: Colour, thickness: float) -> None:
        for draw, ink in self.inks(fill):
            draw.line(self.place(points), fill=ink, width=max(1, round(thickness * self.unit)))

    def disc(self, centre: complex, radius: float, fill: Colour) -> None:
        x, y = self.place(np.array([centre]))
        r = radius * self.unit
        for draw, ink in self.inks(fill):
            draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)


def paint_look(
    look: Mapping[str, str | None], rng: np.random.Generator, size: int, parts: Image.Image | None = None
) -> Image.Image:
    """Paint one picture of the given look (group -> option or None).

    `parts`, an image of mode "L" and `SUPERSAMPLE` times the size, receives the number of the part that each of its
    pixels shows.
    """
    block = rng.random(_POSE_DRAWS + _BIRD_DRAWS + _SCENE_DRAWS + _OCCLUDER_DRAWS)
    ends = np.cumsum([_POSE_DRAWS, _BIRD_DRAWS, _SCENE_DRAWS])
    pose, bird, scene, occluder = (iter(part.tolist()) for part in np.split(block, ends))
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)

    side = SUPERSAMPLE * size
    scale = SCALES[look["size"]] * (0.95 + 0.1 * next(pose)) * side / 64
    angle = np.deg2rad(-9 + 18 * next(pose))
    flip = next(pose) < 0.5
    x, y = side * (0.47 + 0.06 * next(pose)), side * (0.50 + 0.08 * next(pose))
    turn = scale * complex(np.cos(angle), np.sin(angle))
    light = 0.78 + 0.36 * next(pose)
    warmth = -0.08 + 0.16 * next(pose)
    grain = 1.5 + 4.5 * next(pose)

    feet = min(0.93, (y + 0.62 * scale) / side)
    canvas = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(canvas)
    _SCENES[look["habitat"]](canvas, draw, side, feet, scene)
    shadow = (x - 0.5 * scale, feet * side - 0.05 * scale, x + 0.5 * scale, feet * side + 0.09 * scale)
    ground = canvas.getpixel((min(side - 1, max(0, int(x))), min(side - 1, int(feet * side))))
    draw.ellipse(shadow, fill=_shade(ground, 0.72))  # type: ignore[arg-type]
    brush = _Brush(canvas, parts, complex(x, y), turn, flip)
    _draw_bird(brush, look, bird)
    _draw_occluder(brush.of("background"), side, look["habitat"], occluder)

    pixels = np.asarray(canvas.reduce(SUPERSAMPLE), dtype=np.float32)
    tint = np.array([light * (1 + warmth), light, light * (1 - warmth)], dtype=np.float32)
    return Image.fromarray(np.clip(pixels * tint + grain * noise, 0, 255).astype(np.uint8))


def _draw_bird(brush: _Brush, look: Mapping[str, str | None], draws: Iterator[float]) -> None:
    body = _shade(_BODIES[int(next(draws) * len(_BODIES))], 0.9 + 0.2 * next(draws))
    bill_colour = _BILLS[int(next(draws) * len(_BILLS))]
    tone = 0.92 + 0.16 * next(draws)
    droop = np.exp(1j * np.deg2rad(-14 + 20 * next(draws)))
    nod = complex(-0.02 + 0.04 * next(draws), -0.02 + 0.04 * next(draws))
    stride = 0.06 * (next(draws) - 0.5)

    def coloured(group: str, default: Colour) -> Colour:
        option = look[group]
        return default if option is None else _shade(COLOURS[option], tone)

    edge = _shade(body, 0.5)
    wing = coloured("wings", _shade(body, 0.82))
    crown = coloured("crown", body)
    legs = LEG_COLOURS[look["legs"]] if look["legs"] else (128, 104, 84)

    # A longer tail hangs lower, so that it stays in the picture.
    axis = _TAIL_AXIS * droop * (np.exp(-1j * np.deg2rad(18)) if look["tail"] == "long" else 1.0)
    tail_colour = _shade(body, 0.74)
    brush.of("tail").shape(_TAIL_BASE + axis * _TAIL_SHAPES[look["tail"]], tail_colour, edge)
    if look["tail"] == "fanned":
        for tip in _TAIL_RAYS:
            brush.line(np.array([_TAIL_BASE, _TAIL_BASE + axis * tip]), edge, 0.02)
    for leg, toes, step in zip(_LEGS, _TOES, (stride, -stride)):
        brush.of("legs").line(leg + np.array([0, step]), legs, 0.075)
        brush.line(toes + step, legs, 0.065)
    if look["crest"]:
        brush.of("crest").shape(_CREST + nod, crown, _shade(crown, 0.6))
    brush.of("body").shape(_BODY, body, edge)
    breast = coloured("breast", body)
    if look["breast"]:
        brush.of("breast").shape(_BREAST, breast)
        brush.line(_BODY[4:22], _shade(breast, 0.7), 0.03)
    if look["spots"]:
        for spot in _SPOTS:
            jitter = complex(next(draws) - 0.5, next(draws) - 0.5) * 0.03
            brush.of("spots").disc(spot + jitter, 0.036, (48, 36, 34))
    brush.of("wings").shape(_WING, wing, _shade(wing, 0.55))
    for feather in _FEATHERS:
        brush.line(feather, _shade(wing, 0.62), 0.025)
    if look["wing bars"]:
        for bar in _WING_BARS:
            brush.of("wing bars").shape(bar, (250, 249, 244))

    head = _HEAD + nod + _HEAD_RADIUS * np.exp(1j * np.linspace(0, 2 * np.pi, 20, endpoint=False))
    brush.of("body").shape(head, _shade(body, 1.06))
    brush.line(np.concatenate([head[12:], head[:1]]), edge, 0.02)
    brush.of("bill").shape(_BILL_SHAPES[look["bill"]] + nod, bill_colour, _shade(bill_colour, 0.6))
    if look["crown"]:
        brush.of("crown").shape(_CROWN + nod, crown)
    if look["mask"]:
        brush.of("mask").shape(_MASK + nod, (22, 21, 25))
    if not look["mask"]:
        brush.of("body")
    eye = complex(0.47, -0.355) + nod
    if look["mask"]:
        brush.disc(eye, 0.045, (232, 226, 206))
    brush.disc(eye, 0.03 if look["mask"] else 0.034, (12, 11, 14))


def _gradient(canvas: Image.Image, box: tuple[int, int, int, int], top: Colour, bottom: Colour) -> None:
    width, height = box[2] - box[0], box[3] - box[1]
    if width > 0 and height > 0:
        strip = Image.frombytes("RGB", (1, 2), bytes((*top, *bottom)))
        canvas.paste(strip.resize((width, height), Image.Resampling.BILINEAR), box[:2])


def _land(
    canvas: Image.Image, side: int, feet: float, draws: Iterator[float], sky: tuple[Colour, Colour], soil: Colour
) -> int:
    """Sky and ground, with the horizon above the feet; returns the horizon's row."""
    horizon = int(side * min(feet - 0.06, 0.52 + 0.14 * next(draws)))
    brightness = 0.9 + 0.15 * next(draws)
    _gradient(canvas, (0, 0, side, horizon), _shade(sky[0], brightness), _shade(sky[1], brightness))
    _gradient(canvas, (0, horizon, side, side), soil, _shade(soil, 0.84))
    return horizon


def _lake(canvas: Image.Image, draw: ImageDraw.ImageDraw, side: int, feet: float, draws: Iterator[float]) -> None:
    horizon = _land(canvas, side, feet, draws, ((150, 196, 232), (214, 232, 240)), (150, 140, 108))
    draw.ellipse(
        (side * (next(draws) - 0.6), horizon - 0.1 * side, side * (next(draws) + 0.5), horizon + 0.1 * side),
        fill=(112, 138, 120),
    )
    shore = int(side * (feet - 0.05))
    _gradient(canvas, (0, horizon, side, shore), (70, 138, 190), (44, 108, 168))
    for _ in range(7):
        x, y, length = side * next(draws), horizon + (shore - horizon) * next(draws), side * (0.08 + 0.2 * next(draws))
        draw.line((x, y, x + length, y), fill=(176, 212, 232), width=1)
    for _ in range(6):
        x, y, r = side * next(draws), shore + (side - shore) * next(draws), side * (0.008 + 0.015 * next(draws))
        draw.ellipse((x - r, y - r / 2, x + r, y + r / 2), fill=(112, 104, 84))


def _forest(canvas: Image.Image, draw: ImageDraw.ImageDraw, side: int, feet: float, draws: Iterator[float]) -> None:
    horizon = _land(canvas, side, feet, draws, ((120, 158, 112), (164, 190, 132)), (96, 88, 54))
    for _ in range(5):
        x, width = side * next(draws), side * (0.03 + 0.05 * next(draws))
        bark = _mix((88, 66, 46), (120, 100, 76), next(draws))
        draw.rectangle((x, 0, x + width, horizon + side * 0.03), fill=bark)
    for _ in range(9):
        x, y, r = side * next(draws), side * 0.3 * next(draws), side * (0.07 + 0.08 * next(draws))
        leaf = _mix((44, 92, 42), (92, 140, 62), next(draws))
        draw.ellipse((x - r, y - r * 0.75, x + r, y + r * 0.75), fill=leaf)


def _desert(canvas: Image.Image, draw: ImageDraw.ImageDraw, side: int, feet: float, draws: Iterator[float]) -> None:
    horizon = _land(canvas, side, feet, draws, ((236, 196, 142), (250, 228, 186)), (222, 182, 116))
    for _ in range(2):
        x, r = side * next(draws), side * (0.3 + 0.3 * next(draws))
        draw.ellipse((x - r, horizon - r * 0.22, x + r, horizon + r * 0.3), fill=(208, 164, 102))
    for _ in range(2):
        x, height, width = side * next(draws), side * (0.16 + 0.16 * next(draws)), side * 0.035
        green, arm = (84, 122, 78), width * (1 if next(draws) < 0.5 else -1)
        top = horizon - height
        draw.rounded_rectangle((x - width, top, x + width, horizon + 0.04 * side), radius=width, fill=green)
        elbow = top + 0.5 * height
        draw.line((x, elbow, x + 3 * arm, elbow, x + 3 * arm, elbow - 0.3 * height), fill=green, width=round(width))
    for _ in range(4):
        x, y = side * next(draws), horizon + (side - horizon) * next(draws)
        draw.line((x, y, x + 0.1 * side, y - 0.01 * side), fill=(196, 152, 92), width=1)


def _snow(canvas: Image.Image, draw: ImageDraw.ImageDraw, side: int, feet: float, draws: Iterator[float]) -> None:
    horizon = _land(canvas, side, feet, draws, ((166, 178, 194), (206, 214, 224)), (238, 242, 248))
    for _ in range(4):
        x, height = side * next(draws), side * (0.18 + 0.2 * next(draws))
        for level in (0.0, 0.3):
            top = horizon - height * (1 - level)
            half = height * (0.22 + 0.12 * level)
            draw.polygon((x, top, x - half, top + 0.62 * height, x + half, top + 0.62 * height), fill=(82, 104, 104))
            draw.polygon(
                (x, top, x - half / 3, top + 0.2 * height, x + half / 3, top + 0.2 * height), fill=(240, 244, 248)
            )
    for _ in range(14):
        x, y = side * next(draws), side * next(draws)
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(250, 252, 255))


def _studio(canvas: Image.Image, draw: ImageDraw.ImageDraw, side: int, feet: float, draws: Iterator[float]) -> None:
    _land(canvas, side, feet, draws, ((196, 196, 200), (214, 212, 208)), (186, 182, 176))


_SCENES = {None: _studio, "lake": _lake, "forest": _forest, "desert": _desert, "snow": _snow}
_FOREGROUND: dict[str | None, Colour] = {
    None: (150, 146, 140),
    "lake": (110, 140, 70),
    "forest": (64, 112, 48),
    "desert": (168, 138, 84),
    "snow": (120, 106, 96),
}


def _draw_occluder(brush: _Brush, side: int, habitat: str | None, draws: Iterator[float]) -> None:
    """In a third of the pictures, a few stems or blades stand before the bird."""
    if next(draws) > 0.34:
        return
    centre, scale = brush.centre, brush.unit
    colour = _shade(_FOREGROUND[habitat], 0.8 + 0.35 * next(draws))
    base = centre.real + scale * (-0.9 + 1.8 * next(draws))
    for _ in range(2 + int(2 * next(draws))):
        x = base + 0.16 * scale * (next(draws) - 0.5)
        lean, height = scale * 0.6 * (next(draws) - 0.5), scale * (0.45 + 0.6 * next(draws))
        bottom, width = centre.imag + 0.85 * scale, 0.022 * side
        blade = (
            x - width, bottom, x + width, bottom, x + 0.6 * lean + 0.4 * width, bottom - 0.6 * height,
            x + lean, bottom - height, x + 0.6 * lean - 0.5 * width, bottom - 0.6 * height,
        )  # fmt: skip
        for draw, ink in brush.inks(colour):
            draw.polygon(blade, fill=ink)
