"""What a concept file holds and the run does not use is said by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsecbm._base.errors import DataWarning
from sparsecbm.config.reading import build_config
from sparsecbm.inputs.concepts import embed_concepts
from sparsecbm.inputs.data import open_encoder


def _config(path: Path, **concepts):
    return build_config({"concepts": {"file": str(path), **concepts}, "encoder": {"cache": "memory"}})


def test_concepts_that_a_filter_drops_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("red crown\nan extremely long and hooked bill\n")
    config = _config(path, filters={"max_length": 20, "min_activation": None, "max_mutual_similarity": None})
    bank = embed_concepts(config, open_encoder(config.encoder), (), None)
    assert bank.names == ("red crown",)
    assert bank.record["dropped"] == {"33 characters, more than 20": ["an extremely long and hooked bill"]}


def test_relevance_is_matched_by_form_or_said_to_be_unused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("Great_Dane: [long legs]\nno: [a bill]\n")
    config = _config(path)
    encoder = open_encoder(config.encoder)
    bank = embed_concepts(config, encoder, ("No", "great dane"), None)
    np.testing.assert_array_equal(bank.relevance, [[0, 1], [1, 0]])
    with pytest.warns(DataWarning, match="relevance is not used: 1 of 2 classes not found: 'wren'"):
        assert embed_concepts(config, encoder, ("no", "wren"), None).relevance is None
