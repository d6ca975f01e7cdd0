"""Words that have nothing to do with the pictures, embedded: a control for concepts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.texts import read_text
from sparsecbm.config.schema import EmbeddingsConfig
from sparsecbm.inputs.concepts import read_concepts
from sparsecbm.inputs.models import StoredModel

if TYPE_CHECKING:
    from sparsecbm.embeddings import Embeddings


def word_vectors(
    stored: StoredModel, held: Embeddings, words: str | Path | None, seeds: int
) -> tuple[np.ndarray | None, str | None]:
    """Text embeddings of random words and None, or None and why there are none."""
    from sparsecbm.embeddings import embed_texts
    from sparsecbm.evaluation.words import random_words

    classifier = stored.classifier
    if classifier.concept_embeddings_ is None:
        return None, "the model was trained on concept scores: their embeddings are not known"
    if words is not None and Path(words).suffix == ".npz":
        vectors = read_concepts(EmbeddingsConfig(path="-", concepts=str(words))).vectors
        if vectors.shape[1] != classifier.n_features_in_:
            d = classifier.n_features_in_
            raise InputError(f"{str(words)!r} holds {vectors.shape[1]}-d embeddings; the model expects {d}-d ones")
        return vectors, None
    vocabulary = None if words is None else _vocabulary(Path(words))
    spec = stored.spec or (stored.metadata.get("encoder") or {}).get("spec")
    if held.images is None and stored.spec is None and not _is_local(spec):
        # Vectors need no encoder, so none is downloaded for the sake of a control.
        known = f" (--encoder {spec} as the model remembers)" if spec else ""
        return None, (
            f"there is no encoder to embed words: give --encoder SPEC{known}, or --words FILE.npz; "
            "until then meaningless directions stand in for them"
        )
    n = len(classifier.concept_names_) * seeds
    exclude = (*classifier.concept_names_, *stored.class_names)
    try:
        encoder = stored.encoder
    except (InputError, OSError, ImportError) as error:
        return None, f"the encoder cannot be loaded: {' '.join(str(error).split())}"
    rng = np.random.default_rng(0)
    if vocabulary is not None:
        n = min(n, len(vocabulary))
        exclude = ()
    templates = (stored.metadata.get("concepts") or {}).get("templates") or ["{}"]
    texts = random_words(n, rng, vocabulary, exclude=exclude)
    return np.asarray(embed_texts(encoder, texts, templates, cache="memory").vectors, dtype=np.float32), None


def _vocabulary(path: Path) -> list[str]:
    lines = read_text(path, "words").splitlines()
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise InputError(f"{str(path)!r} holds no words: expected a word a line")
    return found


def _is_local(spec: str | None) -> bool:
    return spec is not None and (spec == "bundled" or spec.startswith("open_clip:local-dir:"))
