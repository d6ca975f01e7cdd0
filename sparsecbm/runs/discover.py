"""Concepts found in pictures: trained, named as far as a vocabulary can, measured, written with a page."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm._base.files import check_free, plain, write_text
from sparsecbm._base.names import same_name_key
from sparsecbm._base.rows import evenly_spaced, unit_rows
from sparsecbm.config.schema import EmbeddingsConfig
from sparsecbm.inputs.comparison import Comparison
from sparsecbm.inputs.concepts import read_concepts
from sparsecbm.runs.base import Result

if TYPE_CHECKING:
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.dictionary.naming import Naming
    from sparsecbm.explain.pages.discover_page import Found

_SHOWN = 8
_ON_PAGE = {"name", "word", "named", "confidence", "share", "auc", "chance", "parent", "twins"}
_LOOK = 20_000
"""Pictures that concepts are named and shown by."""
_WORDS = 32
"""Words of a vocabulary that are embedded again, to see whether its vectors are this encoder's."""


@dataclass(frozen=True, eq=False)
class DiscoverResult(Result):
    """What `discover_concepts` found.

    Attributes
    ----------
    concepts : ConceptSet
        The user's words, if any were given, then what was found.
    found, named, pictures : int
        Concepts found, those of them that have a name, and pictures looked at.
    variance : float
        Share of the pictures' variance that is rebuilt (of what the user's words leave, where some are given).
    output, page : Path
    """

    concepts: ConceptSet
    found: int
    named: int
    pictures: int
    variance: float
    output: Path
    page: Path

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain({**vars(self), "concepts": self.concepts.names, "details": self.concepts.provenance["found"]})


def discover_concepts(
    images: str,
    encoder: str,
    output: str | Path,
    *,
    vocabulary: str | Path | None = None,
    words: str | Path | None = None,
    size: int = 512,
    active: int = 16,
    kind: str = "matryoshka",
    max_iter: int = 2000,
    restarts: int = 1,
    max_images: int | None = None,
    templates: str | None = None,
    seed: int = 0,
    force: bool = False,
    device: str = "auto",
) -> DiscoverResult:
    """Find concepts in pictures; write them, and a page that shows them.

    Parameters
    ----------
    images, encoder : str
        Specs; no labels are looked at.
    output : path
        ``.safetensors``. The page stands beside it, as ``.html``.
    vocabulary : path, optional
        Words to name concepts by: a concept file, or an .npz with `embeddings` of the same encoder and `names`.
    words : path, optional
        Concepts of the user's own, which come first; concepts are then found in what these do not rebuild.
    size, active, kind, max_iter, restarts, seed, device
        Of `SparseAutoencoder`. A killed training goes on where it stopped.
    max_images : int, optional
    templates : str, optional
        For words.
    force : bool
        Whether to replace a file that is there.

    Raises
    ------
    InputError
        If the vocabulary is empty or of another encoder, or anything else is not as expected.
    """
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.dictionary.kinds.matryoshka import prefixes
    from sparsecbm.dictionary.naming import name_units
    from sparsecbm.dictionary.quality import duplicates, hierarchy, name_quality
    from sparsecbm.estimators.sparse_autoencoder import SparseAutoencoder, left_over
    from sparsecbm.explain.pages.discover_page import DiscoverPage, Figure

    output = Path(output)
    if output.suffix != ".safetensors":
        raise InputError(f"output {str(output)!r}: expected a name that ends in .safetensors, which holds vectors")
    check_free(output, force)
    comparison = Comparison(encoder=encoder, images=images, max_images=max_images, templates=templates, device=device)
    given = None if words is None else ConceptSet.from_file(words)
    known, texts = _vocabulary(vocabulary, comparison)
    pictures = comparison.pictures
    assert pictures is not None
    X = np.asarray(pictures.vectors)
    given_vectors = np.zeros((0, X.shape[1]), np.float32)
    if given is not None:
        given_vectors = comparison.vectors(given)["concept_embeddings"]
        X = left_over(X, given_vectors, active)
    work = output.with_name(f".{output.stem}.training")
    options: dict[str, Any] = {"kind": kind, "active": active, "max_iter": max_iter, "restarts": restarts}
    model = SparseAutoencoder(size, **options, device=device, random_state=seed)
    model.fit(X, checkpoint_dir=work)
    where = np.arange(len(X))
    if len(X) > _LOOK:
        where = np.sort(np.random.default_rng(seed).permutation(len(X))[:_LOOK])
    some = X[where]
    codes = model.transform(some)
    alive = np.flatnonzero((codes > 0).any(axis=0))
    codes, atoms = codes[:, alive], model.components_[alive]
    naming = name_units(atoms, codes, some, known, texts, seed=seed) if known else None
    names = _names(naming, len(alive), () if given is None else given.names)
    parents = hierarchy(codes, [int(np.searchsorted(alive, m)) for m in prefixes(size)]) if kind == "matryoshka" else []
    quality = None
    if naming is not None:
        quality = name_quality(texts[naming.index] - texts.mean(axis=0), codes, some, seed)
    twins = duplicates(atoms, [None] * len(atoms) if naming is None else naming.names)
    found = [_note(j, names, codes, naming, quality, parents, twins) for j in range(len(names))]
    provenance = {
        "source": "found in pictures by a sparse autoencoder",
        "images": images,
        "encoder": {"spec": comparison.encoder.spec, "fingerprint": comparison.encoder.fingerprint},
        "dictionary": {"size": size, **options, "seed": seed},
        "found": found,
    }
    concepts = ConceptSet(
        [*(() if given is None else given.names), *names],
        vectors=np.concatenate([given_vectors, atoms]),
        provenance=plain(provenance),
    )
    concepts.save(output)
    variance, named = model.score(some), 0 if naming is None else sum(name is not None for name in naming.names)
    page = DiscoverPage(
        title="Concepts found in the pictures",
        summary=f"{len(names):,} directions of which at most {active} (on average, for gates that are learned) rebuild "
        "each picture. A name stands where a word does clearly better than as many meaningless ones.",
        figures=(
            Figure("Concepts", f"{len(names):,}", f"of {size:,} asked for: those that some picture uses"),
            Figure("With a name", f"{named:,}", f"by a vocabulary of {len(known):,}"),
            Figure("Variance rebuilt", f"{variance:.1%}", "of what your own words leave" if given is not None else ""),
            Figure("Pictures", f"{len(X):,}", "without labels"),
        ),
        facts={"Pictures": images, "Encoder": comparison.encoder.spec, "Kind": kind, "Seed": str(seed)},
        found=_cards(found, codes, where),
        picture=None if pictures.images is None else pictures.images.__getitem__,
    )
    write_text(output.with_suffix(".html"), page.render())
    shutil.rmtree(work, ignore_errors=True)
    return DiscoverResult(concepts, len(names), named, len(X), variance, output, output.with_suffix(".html"))


def _note(
    j: int,
    names: list[str],
    codes: NDArray[Any],
    naming: Naming | None,
    quality: tuple[NDArray[Any], NDArray[Any]] | None,
    parents: list[int | None],
    twins: list[tuple[int, int]],
) -> dict[str, Any]:
    """What is known of concept `j`, as JSON values."""
    note: dict[str, Any] = {"name": names[j], "share": float((codes[:, j] > 0).mean())}
    if naming is not None and quality is not None:
        note |= {"word": naming.words[j], "confidence": float(naming.confidence[j])}
        note |= {"named": naming.names[j] is not None, "auc": float(quality[0][j]), "chance": float(quality[1][j])}
    if parents and (parent := parents[j]) is not None:
        note["parent"] = names[parent]
    if same := [names[b if a == j else a] for a, b in twins if j in (a, b)]:
        note["twins"] = same
    return note


def _cards(found: list[dict[str, Any]], codes: NDArray[Any], where: NDArray[np.int64]) -> list[Found]:
    """A card a concept, with the pictures (numbers `where` of the rows of codes) that use it most."""
    from sparsecbm.explain.pages.discover_page import Found

    tops = (-codes).argsort(axis=0, kind="stable")[:_SHOWN]
    return [
        Found(
            pictures=tuple(int(where[i]) for i in tops[:, j] if codes[i, j] > 0),
            **{key: note[key] for key in note.keys() & _ON_PAGE},
        )
        for j, note in enumerate(found)
    ]


def _vocabulary(path: str | Path | None, comparison: Comparison) -> tuple[list[str], NDArray[np.float32]]:
    """Words and their embeddings."""
    from sparsecbm.concepts import ConceptSet

    if path is None:
        return [], np.zeros((0, 1), np.float32)
    if Path(path).suffix == ".npz":
        bank = read_concepts(EmbeddingsConfig(path="-", concepts=str(path)))
        if bank.vectors.shape[1] != comparison.encoder.embed_dim:
            raise InputError(
                f"the vocabulary {str(path)!r} has {bank.vectors.shape[1]}-d embeddings and {comparison.spec} gives "
                f"{comparison.encoder.embed_dim}-d ones: embed its words with that encoder"
            )
        _check_words(path, bank.names, bank.vectors, comparison)
        return list(bank.names), bank.vectors
    words = ConceptSet.from_file(path)
    vectors = np.asarray(comparison.vectors(words)["concept_embeddings"])
    if words.vectors is not None and "encoder" not in words.provenance:
        _check_words(path, words.names, vectors, comparison)
    return list(words.names), vectors


def _check_words(path: str | Path, words: Sequence[str], vectors: NDArray[Any], comparison: Comparison) -> None:
    """Warn where the vectors that a file gives its words are nearer to other words' than to their own."""
    index = evenly_spaced(len(words), _WORDS)
    own = comparison.texts([words[i] for i in index])
    cosines = (own - own.mean(axis=0)) @ unit_rows(vectors[index] - vectors[index].mean(axis=0), floor=1e-9).T
    if (cosines.argmax(axis=1) == np.arange(len(index))).mean() < 0.5:
        warnings.warn(
            f"the vocabulary {str(path)!r} does not say its encoder, and its vectors are not those that "
            f"{comparison.spec} gives the same words: names will mean nothing unless it is the same",
            DataWarning,
            stacklevel=3,
        )


def _names(naming: Naming | None, count: int, taken: tuple[str, ...]) -> list[str]:
    """Names as a concept set needs them: all different; "unnamed 3" where there is none."""
    used = {same_name_key(name) for name in taken}
    names = []
    for j in range(count):
        word = None if naming is None else naming.names[j]
        name, turn = word or f"unnamed {j}", 1
        while same_name_key(name) in used:
            turn += 1
            name = f"{word or f'unnamed {j}'} ({turn})"
        used.add(same_name_key(name))
        names.append(name)
    return names
