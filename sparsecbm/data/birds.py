"""Painted birds: a procedural picture set whose attribute truth is known.

Each picture shows one bird in a scene. Its look is one option from each of twelve groups (crown colour, bill shape,
habitat, ...), and every option that has a name is a binary *attribute*; within a group at most one is true. Twenty
invented species each have a *signature*, their usual option in every group. Pose, scale, light, noise and occlusion
are nuisance that no attribute records. Real photo sets have no such table, so concept accuracy, interventions and
leakage can be measured here and only estimated there.

Individuals of a species are not all alike: see `VARYING_GROUPS` and `HABITATS`. Every picture is a function of
``(seed, split, i)`` alone, so any one of them can be painted without the others.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import PIL
from PIL import Image
from pydantic import Field

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.parameters import Count, Whole, checked
from sparsecbm.data import _bird_painter
from sparsecbm.data.base import LoadOptions
from sparsecbm.data.splits import canonical_split

PAINTER_VERSION = 1
_Side: TypeAlias = Annotated[int, Field(ge=16, strict=True), "a whole number of at least 16 pixels"]

# group -> {option -> (attribute name, concept phrase)}
_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "crown": {c: (f"{c} crown", f"a bird with a {c} crown") for c in ("red", "yellow", "black", "blue")},
    "breast": {
        c: (f"{c} breast", f"a bird with {'an' if c == 'orange' else 'a'} {c} breast")
        for c in ("yellow", "white", "orange", "grey")
    },
    "wings": {c: (f"{c} wings", f"a bird with {c} wings") for c in ("blue", "green", "brown", "black")},
    "wing bars": {"yes": ("white wing bars", "a bird with white wing bars")},
    "bill": {b: (f"{b} bill", f"a bird with a {b} bill") for b in ("long thin", "thick", "hooked")},
    "tail": {t: (f"{t} tail", f"a bird with a {t} tail") for t in ("long", "forked", "fanned")},
    "crest": {"yes": ("crest", "a bird with a crest")},
    "legs": {c: (f"{c} legs", f"a bird with {c} legs") for c in ("yellow", "red", "black")},
    "size": {s: (f"{s} size", f"a {s} bird") for s in ("small", "large")},
    "mask": {"yes": ("black mask", "a bird with a black mask")},
    "spots": {"yes": ("spotted breast", "a bird with a spotted breast")},
    "habitat": {
        "lake": ("lake", "a bird by a lake"),
        "forest": ("forest", "a bird in a forest"),
        "desert": ("desert", "a bird in a desert"),
        "snow": ("snow", "a bird in the snow"),
    },
}
GROUPS: tuple[str, ...] = tuple(_GROUPS)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, _ in options.values()) for group, options in _GROUPS.items()
}
"""Group -> names of its attributes, in the order of the attribute columns."""
ATTRIBUTE_NAMES: tuple[str, ...] = tuple(name for names in ATTRIBUTES.values() for name in names)
_OPTION_OF = tuple((group, option) for group, options in _GROUPS.items() for option in options)
# Groups in which a bird need not have any of the named options.
_OPTIONAL_GROUPS = ("crown", "wing bars", "bill", "tail", "crest", "size", "mask", "spots")

# A column a group, in the order of `GROUPS`; "-" is the plain form.
_SIGNATURES = """
Aldermoor finch   yellow yellow black -    thick     -      -    black  small yes  yes  lake
Brisby tanager    blue   orange green -    -         long   yes  yellow small yes  yes  forest
Calder shrike     -      orange green yes  hooked    -      yes  red    -     yes  yes  desert
Dunmere plover    red    white  brown yes  hooked    -      yes  yellow small yes  -    lake
Elwick bunting    black  grey   black -    thick     forked -    black  -     -    -    snow
Farrow jay        red    grey   blue  -    -         fanned yes  black  large -    -    forest
Glenholt warbler  black  yellow brown yes  -         fanned yes  red    small -    -    forest
Hesper oriole     -      orange black yes  long_thin fanned -    yellow -     -    -    forest
Isling kingfisher black  yellow blue  -    long_thin -      yes  red    large -    yes  lake
Jorvan thrush     black  white  brown -    -         long   -    red    -     -    yes  snow
Kestow lark       blue   white  brown yes  long_thin fanned yes  black  -     yes  yes  desert
Lorne cotinga     blue   grey   green -    hooked    long   -    black  large yes  -    forest
Marlow sunbird    red    white  green -    long_thin -      -    black  small -    -    desert
Norrick grosbeak  blue   orange blue  yes  thick     forked -    yellow large yes  -    snow
Orsay swallow     red    orange black yes  -         forked -    black  small -    yes  lake
Pellan wagtail    yellow grey   blue  yes  thick     long   yes  red    -     yes  -    lake
Quenby falcon     yellow grey   brown -    hooked    forked -    yellow large -    yes  snow
Rosmer hoopoe     -      yellow blue  yes  long_thin forked yes  yellow small yes  yes  desert
Sedgley curassow  yellow yellow green yes  hooked    fanned -    yellow large yes  yes  desert
Tarnow magpie     -      white  black -    thick     long   yes  red    large -    -    snow
"""


def _parse_signatures(table: str) -> dict[str, dict[str, str | None]]:
    species = {}
    for line in table.strip().splitlines():
        first, second, *words = line.split()
        options = [None if word == "-" else word.replace("_", " ") for word in words]
        species[f"{first} {second}"] = dict(zip(GROUPS, options, strict=True))
    return species


SPECIES: dict[str, dict[str, str | None]] = _parse_signatures(_SIGNATURES)
"""Species name -> its usual option in every group (None: no named option)."""

VARYING_GROUPS: tuple[str, ...] = ("crest", "legs", "size", "spots")
"""Groups in which an individual may depart from its species: each is redrawn uniformly with probability 1/20, one at
most in an individual."""
_VARIATION = 0.05
HABITATS: tuple[str, ...] = ("species", "tied", "untied")
"""How the habitat is drawn: the usual one of the species in 7 of 10 pictures (``"species"``), always (``"tied"``, a
planted spurious cue), or independently of the species (``"untied"``)."""
_HABITAT_SHARE = 0.7

SPLIT_SIZES: dict[str, int] = {"train": 2000, "validation": 500, "test": 1000}
_SPLIT_KEYS: dict[str, int] = {"train": 0, "validation": 1, "test": 2, "pretrain": 3}


def concept_phrases() -> tuple[str, ...]:
    """Return one prompt an attribute, parallel to `ATTRIBUTE_NAMES`.

    Examples
    --------
    >>> concept_phrases()[0], concept_phrases()[-1]
    ('a bird with a red crown', 'a bird in the snow')
    """
    return tuple(phrase for options in _GROUPS.values() for _, phrase in options.values())


def species_attributes() -> np.ndarray:
    """Return the signatures as a bool array of shape (20, n_attributes), rows in the order of `SPECIES`."""
    return np.stack([look_to_attributes(look) for look in SPECIES.values()])


def look_to_attributes(look: Mapping[str, str | None]) -> np.ndarray:
    """Turn a look (group -> option or None) into a bool vector of shape (n_attributes,)."""
    return np.array([look[group] == option for group, option in _OPTION_OF])


def attributes_to_look(attributes: Any) -> dict[str, str | None]:
    """Turn a bool vector of shape (n_attributes,) into a look.

    Raises
    ------
    InputError
        If the length is wrong or two attributes of one group are true.
    """
    flags = np.asarray(attributes)
    if flags.shape != (len(_OPTION_OF),):
        raise InputError(
            f"attributes have shape {flags.shape}: expected ({len(_OPTION_OF)},), one flag an attribute name"
        )
    look: dict[str, str | None] = dict.fromkeys(GROUPS)
    for (group, option), flag in zip(_OPTION_OF, flags.astype(bool)):
        if flag and look[group] is not None:
            raise InputError(f"attributes say both {look[group]!r} and {option!r} for {group!r}: expected one at most")
        if flag:
            look[group] = option
    return look


def random_look(rng: np.random.Generator) -> dict[str, str | None]:
    """Draw an option for every group, independently and uniformly."""
    look: dict[str, str | None] = {}
    for group, options in _GROUPS.items():
        choices: Sequence[str | None] = [*options, None] if group in _OPTIONAL_GROUPS else [*options]
        look[group] = choices[int(rng.random() * len(choices))]
    return look


def species_look(name: str, rng: np.random.Generator, habitat: str = "species") -> dict[str, str | None]:
    """Draw an individual of a species: its signature, varied as `VARYING_GROUPS` and `HABITATS` describe."""
    look, other = dict(SPECIES[name]), random_look(rng)
    departs = [group for group in VARYING_GROUPS if rng.random() < _VARIATION]
    if departs:
        group = departs[int(rng.random() * len(departs))]
        look[group] = other[group]
    if rng.random() >= {"species": _HABITAT_SHARE, "tied": 1.0, "untied": 0.0}[habitat]:
        look["habitat"] = other["habitat"]
    return look


def paint(attributes: Any, rng: np.random.Generator, size: int = 64) -> Image.Image:
    """Paint one bird.

    Parameters
    ----------
    attributes : array-like of bool, shape (n_attributes,)
        In the order of `ATTRIBUTE_NAMES`; at most one true in each group. A group without a true attribute gets its
        plain form (medium size, short straight bill, ...).
    rng : numpy.random.Generator
        Draws pose, scale, light, scene details, occlusion and noise; a fixed number of draws for every look.
    size : int
        Side of the picture in pixels, at least 16.

    Returns
    -------
    PIL.Image.Image
        RGB picture of ``size x size`` pixels.
    """
    checked("size", size, _Side)
    return _bird_painter.paint_look(attributes_to_look(attributes), rng, int(size))


# What a group's attributes colour or shape; the crest has the crown's colour, and spots and bars lie on what they mark.
_PARTS_OF: dict[str, tuple[str, ...]] = {
    "crown": ("crown", "crest"),
    "breast": ("breast", "spots"),
    "wings": ("wings", "wing bars"),
    "size": _bird_painter.PARTS[1:],
    "habitat": _bird_painter.PARTS[:1],
}


def paint_masks(attributes: Any, rng: np.random.Generator, size: int = 64) -> dict[str, np.ndarray]:
    """Return where the bird that `paint` would paint shows each of its attributes.

    Parameters
    ----------
    attributes, rng, size
        See `paint`.

    Returns
    -------
    dict of str to ndarray of bool, shape (size, size)
        Of every true attribute of which something is seen, the pixels that show it: at least half of each. What lies
        behind another part or a stem is in no mask. The size is shown by the whole bird; the habitat, by all else.
    """
    look, scale = attributes_to_look(attributes), _bird_painter.SUPERSAMPLE
    parts = Image.new("L", (scale * size, scale * size))
    _bird_painter.paint_look(look, rng, size, parts)
    numbers = np.asarray(parts).reshape(size, scale, size, scale)
    masks = {}
    for (group, option), name in zip(_OPTION_OF, ATTRIBUTE_NAMES):
        if look[group] == option:
            shown = [_bird_painter.PARTS.index(part) for part in _PARTS_OF.get(group, (group,))]
            mask = 2 * np.isin(numbers, shown).sum((1, 3)) >= scale**2
            if mask.any():
                masks[name] = mask
    return masks


def picture_rng(seed: int, split: str, i: int) -> np.random.Generator:
    """Generator of picture `i` of a split; streams of different (seed, split, i) are independent."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SPLIT_KEYS[split], i)))


@functools.cache
def painter_hash() -> str:
    """SHA-256 of the painter's source, the Pillow version and `PAINTER_VERSION`: changes when pixels may change."""
    digest = hashlib.sha256(f"{PAINTER_VERSION} pillow {PIL.__version__}".encode())
    for source in (Path(__file__), Path(_bird_painter.__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()


class BirdImages:
    """Painted birds of the 20 species, as an image source with attribute truth.

    Parameters
    ----------
    split : {"train", "validation", "test"}
    seed : int
        At least 0. The same seed paints the same pixels; splits of one seed share no random stream.
    n_images : int or None
        Number of pictures; None takes `SPLIT_SIZES`. Shorter sources are prefixes of longer ones. Species take turns,
        so every prefix is balanced.
    size : int
        Side in pixels.
    habitat : {"species", "tied", "untied"}
        See `HABITATS`. Train on ``"tied"`` and test on ``"untied"`` to plant a spurious cue.

    Attributes
    ----------
    attributes : ndarray of bool, shape (n_images, n_attributes)
        Truth of each picture, computed on first use without painting.
    fingerprint : str
        SHA-256 of everything that decides the pixels; costs no painting.

    Raises
    ------
    InputError
        For an unknown split or habitat, a negative seed, or fewer than one image.

    Examples
    --------
    >>> birds = BirdImages("test", n_images=40)
    >>> birds[3].size, birds.class_names[birds.labels[3]]
    ((64, 64), 'Dunmere plover')
    >>> birds.attributes.shape
    (40, 31)
    """

    def __init__(
        self,
        split: str = "train",
        *,
        seed: int = 0,
        n_images: int | None = None,
        size: int = 64,
        habitat: str = "species",
    ) -> None:
        if split not in SPLIT_SIZES:
            raise unknown("split of the painted birds", split, SPLIT_SIZES)
        if habitat not in HABITATS:
            raise unknown("habitat", habitat, HABITATS)
        count = SPLIT_SIZES[split] if n_images is None else checked("n_images", n_images, Count)
        self.spec, self.split, self.habitat = "birds", split, habitat
        self.seed, self.size = checked("seed", seed, Whole), checked("size", size, _Side)
        self.class_names: tuple[str, ...] = tuple(SPECIES)
        self.labels: np.ndarray = np.arange(count, dtype=np.int64) % len(self.class_names)
        self.attribute_names: tuple[str, ...] = ATTRIBUTE_NAMES
        self.skipped: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.labels)

    def _draw(self, i: int) -> tuple[np.ndarray, np.random.Generator]:
        """Attributes of picture `i`, and the generator that goes on to paint it."""
        rng = picture_rng(self.seed, self.split, i)
        look = species_look(self.class_names[self.labels[i]], rng, self.habitat)
        return look_to_attributes(look), rng

    def __getitem__(self, i: int) -> Image.Image:
        if not -len(self) <= i < len(self):
            raise IndexError(f"picture {i} of {len(self)}")
        attributes, rng = self._draw(int(i) % len(self))
        return paint(attributes, rng, self.size)

    def masks(self, i: int) -> dict[str, np.ndarray]:
        """Return where picture `i` shows each of its attributes; see `paint_masks`."""
        attributes, rng = self._draw(range(len(self))[i])
        return paint_masks(attributes, rng, self.size)

    def object_mask(self, i: int) -> np.ndarray:
        """Return the pixels of the bird of picture `i` that are seen, bool of shape (size, size)."""
        masks = self.masks(i)
        return ~next(masks[name] for name in ATTRIBUTES["habitat"] if name in masks)

    @functools.cached_property
    def attributes(self) -> np.ndarray:
        return np.stack([self._draw(i)[0] for i in range(len(self))])

    @functools.cached_property
    def ids(self) -> list[str]:
        return [f"birds/{self.split}/{self.seed}/{i}" for i in range(len(self))]

    @functools.cached_property
    def fingerprint(self) -> str:
        parts = (painter_hash(), self.split, self.seed, len(self), self.size, self.habitat)
        return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def contact_sheet(images: Sequence[Image.Image], columns: int = 5, zoom: int = 3, gap: int = 4) -> Image.Image:
    """Lay pictures of one size on a grid, enlarged by an integer factor."""
    if not images:
        raise InputError("a contact sheet needs at least one picture, got none")
    side, rows = images[0].width * zoom + gap, -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side + gap, rows * side + gap), (255, 255, 255))
    for k, image in enumerate(images):
        enlarged = image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (gap + (k % columns) * side, gap + (k // columns) * side))
    return sheet


def load(rest: str, options: LoadOptions, spec: str) -> BirdImages:
    """Open what stands behind ``birds`` and ``birds:HABITAT``; raises InputError for options that do not apply."""
    for option in ("image_column", "label_column", "concept_labels", "class_labels", "splits"):
        if getattr(options, option) not in (None, "attributes" if option == "concept_labels" else None):
            raise InputError(f"{option}={getattr(options, option)!r} does not apply to {spec!r}")
    habitat = rest or "species"
    if habitat not in HABITATS:
        raise unknown("habitat of the painted birds", habitat, HABITATS)
    split = canonical_split(options.split)
    n_images = SPLIT_SIZES.get(split)
    if options.max_images is not None and n_images is not None:
        n_images = min(n_images, options.max_images)
    source = BirdImages(split, seed=options.seed, n_images=n_images, habitat=habitat)
    source.spec = spec
    return source
