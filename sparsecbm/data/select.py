"""From a catalogue of all pictures to the source that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm.data.attributes import Table, read_attributes
from sparsecbm.data.base import Catalogue, EncodedImages, LoadOptions
from sparsecbm.data.labels import untrained
from sparsecbm.data.splits import canonical_split, choose_split, stratified_subset


def select(catalogue: Catalogue, options: LoadOptions, spec: str) -> EncodedImages:
    """Choose the split, then the subset, then leave out what cannot be decoded.

    The split comes first and looks at every picture, readable or not, so that `on_error` and `max_images` never move a
    picture from one split to another.
    """
    if catalogue.attributes is None and options.concept_labels is not None:
        keep_labels(catalogue, "concept_labels", _attributes(catalogue, "concept_labels", options.concept_labels))
    # From columns of the data set they are there by now.
    if options.class_labels is not None and (catalogue.labels is None or catalogue.labels.ndim == 1):
        keep_labels(catalogue, "class_labels", _attributes(catalogue, "class_labels", options.class_labels))
    labels = catalogue.one_class
    choice = choose_split(
        options.split,
        catalogue.official,
        labels,
        catalogue.class_names,
        seed=options.seed,
        splits=options.splits,
        what=catalogue.what,
    )
    rows = choice.rows
    if options.max_images is not None:
        known = None if labels is None else labels[rows]
        rows = rows[stratified_subset(known, len(rows), options.max_images, seed=options.seed)]
    split = canonical_split(options.split)
    source = EncodedImages(catalogue, rows, spec=spec, split=split, split_rule=choice.rule, on_error=options.on_error)
    train = next((rows for name, rows in catalogue.official.items() if canonical_split(name) == "train"), None)
    if labels is not None and train is not None:
        trained = labels[train.start : train.stop]
        source.notes += untrained(labels, trained, catalogue.class_names, catalogue.what)
    for note in source.notes:
        warnings.warn(note, DataWarning, stacklevel=1)  # one place for all splits, so that it is said once
    return source


def keep_labels(catalogue: Catalogue, option: str, found: Table) -> None:
    """Keep a table of labels as what it was asked for: what is known of concepts, or classes, known of every picture.

    Raises
    ------
    InputError
        If a class is neither 0 nor 1 for a picture.
    """
    names, values = found
    if option == "concept_labels":
        catalogue.attribute_names, catalogue.attributes = found
        return
    strange = np.argwhere(~np.isin(values, (0, 1)))
    if len(strange):
        i, j = strange[0]
        said = "not said" if np.isnan(values[i, j]) else f"{values[i, j]:g}"
        raise InputError(
            f"class_labels of {catalogue.what}: {names[j]!r} of {catalogue.name(int(i))!r} is {said} ({len(strange)} "
            "such labels): expected 0 or 1 for every picture"
        )
    catalogue.class_names, catalogue.labels = names, values.astype(np.int64)


def _attributes(catalogue: Catalogue, option: str, given: str | Sequence[str]) -> Table:
    """Read the file of attributes of all pictures."""
    if not isinstance(given, str) or not given.lower().endswith(".csv"):
        raise InputError(f"{option}={given!r}: expected a .csv for {catalogue.what}, which has no such columns")
    names = [catalogue.name(row) for row in range(max((rows.stop for rows in catalogue.official.values()), default=0))]
    labels = catalogue.one_class
    classes = () if labels is None else catalogue.class_names
    return read_attributes(given, names, labels, classes, catalogue.what)
