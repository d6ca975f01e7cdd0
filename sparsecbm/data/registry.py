"""`load_images`: pick an image source by its spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.parts import IMAGES
from sparsecbm._base.registry import load_plugins
from sparsecbm.data.base import ImageSource, LoadOptions, OnError

_FORMS = {"birds": "birds[:HABITAT]", "folder": "folder:PATH", "hub": "hub:REPO[:CONFIG]", "parquet": "parquet:GLOB"}


def load_images(
    spec: str,
    split: str = "train",
    *,
    seed: int = 0,
    max_images: int | None = None,
    on_error: OnError = "raise",
    image_column: str | None = None,
    label_column: str | None = None,
    concept_labels: str | Sequence[str] | None = None,
    splits: Mapping[str, str] | None = None,
    class_labels: str | Sequence[str] | None = None,
) -> ImageSource:
    """Open a collection of pictures.

    Parameters
    ----------
    spec : str
        ``birds`` (painted, no files needed), ``hub:REPO[:CONFIG]`` (a data set of the Hugging Face Hub, or a folder in
        its layout), ``folder:PATH`` (one folder a class) or ``parquet:GLOB`` (files in the hub's parquet layout).
        ``birds:tied`` paints every bird in the habitat of its species, a planted spurious cue, and ``birds:untied`` in
        any; see `sparsecbm.data.birds.HABITATS`.
    split : str
        ``train``, ``validation`` (``val``, ``valid``, ``dev``), ``test``, the name of any official split, or ``all``.
        Official splits are used where they exist. A missing validation split is 10% and a missing test split 20% of
        each class of the training pictures, which lose them; see `sparsecbm.data.splits`.
    seed : int
        Seed of the carved splits and of the subset (and of the painter).
    max_images : int, optional
        At most so many pictures: a stratified subset.
    on_error : {"raise", "skip"}
        A picture that cannot be decoded raises `InputError` when it is reached; ``"skip"`` decodes all pictures once at
        the start, leaves the bad ones out of pictures, labels and ids, and lists them in ``.skipped``.
    image_column, label_column : str, optional
        Columns of a hub or parquet data set; found by their type if there is only one candidate.
    concept_labels : str or sequence of str, optional
        What people say the pictures show, kept as ``.attributes`` (n, A) and ``.attribute_names``: a file ``.csv`` (see
        `sparsecbm.data.attributes`), or columns of a hub or parquet data set. A folder's own is ``attributes.csv``;
        painted birds know theirs.
    splits : mapping of str to str, optional
        Which official split to use as which, for instance ``{"test": "validation"}`` where the official test labels are
        secret (validation is then carved out of train).
    class_labels : str or sequence of str, optional
        Classes that do not exclude each other, in place of one a picture: given as `concept_labels`, 0 or 1 for every
        picture. ``.labels`` are then (n, K).

    Returns
    -------
    ImageSource
        Sized and indexable; ``source[i]`` is an upright RGB `PIL.Image.Image`.

    Raises
    ------
    InputError
        If the spec, the split, a column or a picture is not what was expected; one line says which and what to do.

    Examples
    --------
    >>> from sparsecbm import load_images
    >>> birds = load_images("birds", "test", max_images=40)
    >>> len(birds), birds[0].mode
    (40, 'RGB')
    """
    options = LoadOptions(
        split, seed, max_images, on_error, image_column, label_column, concept_labels, splits, class_labels
    )
    if not isinstance(spec, str):
        raise InputError(f"images {spec!r}: expected a text such as {', '.join(_FORMS.values())}")
    kind, colon, rest = spec.partition(":")
    if kind not in IMAGES:
        load_plugins()
    if kind not in IMAGES:
        raise _unknown_source(spec, kind)
    if not rest and (kind != "birds" or colon) and kind in _FORMS:
        raise InputError(f"images {spec!r}: expected {_FORMS[kind]!r}")
    return IMAGES.find(kind)(rest, options, spec)


def _unknown_source(spec: str, kind: str) -> InputError:
    if Path(spec).expanduser().exists():
        form = f"parquet:{spec}" if spec.endswith(".parquet") else f"folder:{spec}"
        return InputError(f"images {spec!r}: say what it is, for instance {form!r}")
    if spec.count("/") == 1 and not spec.startswith(("/", ".", "~")):
        return InputError(f"images {spec!r}: expected {', '.join(_FORMS.values())}; did you mean {'hub:' + spec!r}?")
    return unknown("images", kind, IMAGES)
