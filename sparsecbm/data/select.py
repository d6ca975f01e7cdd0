"""From a catalogue of all pictures to the source that was asked for."""

from __future__ import annotations

import warnings

from sparsecbm._base.errors import DataWarning
from sparsecbm.data.base import Catalogue, EncodedImages, LoadOptions
from sparsecbm.data.labels import untrained
from sparsecbm.data.splits import canonical_split, choose_split, stratified_subset


def select(catalogue: Catalogue, options: LoadOptions, spec: str) -> EncodedImages:
    """Choose the split, then the subset, then leave out what cannot be decoded.

    The split comes first and looks at every picture, readable or not, so that `on_error` and `max_images` never move a
    picture from one split to another.
    """
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
