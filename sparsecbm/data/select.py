"""From a catalogue of all pictures to the source that was asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

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
        catalogue.attribute_names, catalogue.attributes = _attributes(catalogue, options.concept_labels)
    choice = choose_split(
        options.split,
        catalogue.official,
        catalogue.labels,
        catalogue.class_names,
        seed=options.seed,
        splits=options.splits,
        what=catalogue.what,
    )
    rows = choice.rows
    if options.max_images is not None:
        known = None if catalogue.labels is None else catalogue.labels[rows]
        rows = rows[stratified_subset(known, len(rows), options.max_images, seed=options.seed)]
    split = canonical_split(options.split)
    source = EncodedImages(catalogue, rows, spec=spec, split=split, split_rule=choice.rule, on_error=options.on_error)
    train = next((rows for name, rows in catalogue.official.items() if canonical_split(name) == "train"), None)
    if catalogue.labels is not None and train is not None:
        trained = catalogue.labels[train.start : train.stop]
        source.notes += untrained(catalogue.labels, trained, catalogue.class_names, catalogue.what)
    for note in source.notes:
        warnings.warn(note, DataWarning, stacklevel=1)  # one place for all splits, so that it is said once
    return source


def _attributes(catalogue: Catalogue, given: str | Sequence[str]) -> Table:
    """Read the file of attributes of all pictures."""
    if not isinstance(given, str) or not given.lower().endswith(".csv"):
        raise InputError(f"concept_labels={given!r}: expected a .csv for {catalogue.what}, which has no such columns")
    names = [catalogue.name(row) for row in range(max((rows.stop for rows in catalogue.official.values()), default=0))]
    return read_attributes(given, names, catalogue.labels, catalogue.class_names, catalogue.what)
