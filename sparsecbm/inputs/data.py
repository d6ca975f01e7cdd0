"""The one way in for data: from a configuration to embedded splits, concepts and class texts."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import DataWarning, DomainWarning, InputError
from sparsecbm._base.names import match_names, name_list
from sparsecbm.concepts.cleaning import dropped_lines
from sparsecbm.config.schema import EncoderConfig, ImagesConfig, RunConfig, SearchConfig
from sparsecbm.inputs.class_texts import describe_classes, embed_class_texts, embed_names, read_class_texts
from sparsecbm.inputs.concepts import ConceptBank, embed_concepts, open_concepts, read_concepts

if TYPE_CHECKING:
    from sparsecbm.data import ImageSource
    from sparsecbm.embeddings import Embeddings
    from sparsecbm.embeddings.embed import Cache
    from sparsecbm.encoders import Encoder

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Inputs:
    """Everything a run works on, embedded.

    Attributes
    ----------
    splits : dict of str to Embeddings
        What the run is about first; each with its pictures, unless the vectors were made elsewhere.
    class_names : tuple of str, length K
        Empty where the classes have no names.
    bank : ConceptBank
    encoder : dict or None
        ``spec``, ``fingerprint`` and ``precision``, as far as they are known.
    class_texts : ndarray of shape (K, d), or None
        A text of each class.
    descriptions : list of ndarray of shape (p_k, d), or None
        Descriptions of each class.
    seconds : float
        Wall time of embedding or reading, in all.
    opened : dict of str to float
        That of each split.
    concept_labels : ndarray of shape (n, M), or None
        What people say of the training pictures, a column a concept of the bank; NaN where nobody says.
    notes : tuple of str
        What a reader of the results must know about data and encoder, a line each.
    skipped : tuple of (str, str, str)
        Split, name and reason of each picture left out because it cannot be read.
    """

    splits: dict[str, Embeddings]
    class_names: tuple[str, ...]
    bank: ConceptBank
    encoder: dict[str, Any] | None
    class_texts: NDArray[np.float32] | None = None
    descriptions: list[NDArray[np.float32]] | None = None
    concept_labels: NDArray[np.float64] | None = None
    seconds: float = 0.0
    opened: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str, str], ...] = ()

    @property
    def pictures(self) -> Embeddings:
        """The split the run is about."""
        return next(iter(self.splits.values()))

    @property
    def reference(self) -> Embeddings | None:
        """The training pictures, where they are not those the run is about."""
        train = self.splits.get("train")
        return None if train is self.pictures else train

    @property
    def truth(self) -> NDArray[np.int64] | None:
        """True class of each picture."""
        return None if self.pictures.labels is None else np.asarray(self.pictures.labels)

    def said(self) -> dict[str, Any]:
        """What readers of the results must know, for the metrics: notes, pictures left out and concepts dropped."""
        return {
            "notes": list(self.notes),
            "skipped": [dict(zip(("split", "picture", "reason"), left)) for left in self.skipped],
            "concepts_dropped": self.bank.record.get("dropped", {}),
        }


def open_images(config: ImagesConfig, split: str) -> ImageSource:
    """Open one split of the configured pictures."""
    from sparsecbm.data import load_images

    return load_images(
        config.spec,
        split,
        seed=config.seed,
        max_images=getattr(config, f"max_{split}", None),
        on_error=config.on_error,
        image_column=config.image_column,
        label_column=config.label_column,
        concept_labels=config.concept_labels,
        splits=cast(Mapping[str, str] | None, config.splits),
        class_labels=config.class_labels,
    )


def open_encoder(config: EncoderConfig) -> Encoder:
    """Load the configured encoder."""
    from sparsecbm.encoders import load_encoder

    return load_encoder(config.spec, device=config.device, precision=config.precision)


def embed_pictures(
    encoder: Encoder, images: ImageSource, batch_size: int | None = None, cache: Cache = "disk-or-memory"
) -> Embeddings:
    """Embed pictures, or find them embedded; the pictures stay with their vectors."""
    from sparsecbm.embeddings import embed_images

    return replace(embed_images(encoder, images, batch_size=batch_size, cache=cache), images=images)


def read_vectors(path: str | Path, split: str, concept_labels: str | None = None) -> Embeddings:
    """Read one split of vectors made elsewhere, with their file of concept labels; a row is named ``SPLIT/NUMBER``."""
    from sparsecbm.data.attributes import read_attributes
    from sparsecbm.embeddings import load_embeddings

    made = load_embeddings(path, split)
    made = made if made.ids else replace(made, ids=tuple(f"{split}/{i}" for i in range(len(made))))
    if concept_labels is None:
        return made

    def elsewhere(key: str) -> bool:
        other, _, number = key.rpartition("/")
        return bool(other) and other != split and number.isdecimal()

    labels, names = (None, ()) if made.multilabel else (made.labels, made.class_names)
    return replace(made, known=read_attributes(concept_labels, made.ids, labels, names, repr(str(path)), elsewhere))


def prepare(config: RunConfig, many: bool = False) -> Inputs:
    """Embed or read all splits, the concept bank and the texts of the classes.

    Parameters
    ----------
    config : RunConfig
    many : bool
        Whether the caller takes classes that do not exclude each other.

    Raises
    ------
    InputError
        If anything in the configuration cannot be had, the training pictures have no labels, classes do not exclude
        each other where they must, or dimensions differ.
    """
    made, encoder = _open(config, SPLITS)
    from sparsecbm.evaluation.encoder_fit import encoder_fit  # takes seconds to import: after what is wrong is said

    if made.splits["train"].labels is None:
        raise InputError("the training pictures have no labels: give images.label_column, or class folders")
    if not many:
        one_class(made.splits["train"])
    texts = None
    if encoder is not None and made.class_names:
        texts = embed_class_texts(encoder, made.class_names, made.bank.record["templates"], config.encoder.cache)
    elif config.embeddings is not None and config.embeddings.classes is not None:
        texts = read_class_texts(config.embeddings, made.class_names, made.pictures.dim)
    train = made.splits["train"]
    found = encoder_fit(train.vectors, made.bank.vectors, None if train.multilabel else train.labels, texts).note
    notes = [] if found is None else [_said(found)]
    labels = _concept_labels(config, train, made.bank.names, notes)
    return replace(made, class_texts=texts, concept_labels=labels, notes=(*made.notes, *notes))


def one_class(pictures: Embeddings) -> None:
    """Refuse pictures of several classes each, where one is needed."""
    if pictures.multilabel:
        raise InputError(
            "these classes do not exclude each other, and this command needs one class a picture: expected train, "
            "evaluate, predict, explain or report"
        )


def _concept_labels(
    config: RunConfig, train: Embeddings, concepts: Sequence[str], notes: list[str]
) -> NDArray[np.float64] | None:
    """Labels (n, M) of concepts, from the attributes of their names; None where nobody asked for any."""
    images, held = config.images, config.embeddings
    # Painted birds know their attributes also where these are there to measure with.
    asked = held is not None or images.concept_labels is not None or images.spec.startswith("folder:")
    if not asked or train.attributes is None:
        return None
    names, _ = train.attributes
    match = match_names(names, concepts)
    if len(match.missing) == len(names):
        raise InputError(
            f"concept labels of {(held.path if held else images.spec)!r}: no column has the name of a concept: "
            f"{name_list(names, 3)}; concepts are {name_list(concepts, 3)}"
        )
    if match.missing:
        notes.append(_said(f"concept labels of no concept are left out: {match.line('columns')}"))
    return train.attributes_of(concepts)


def prepare_search(config: SearchConfig) -> Inputs:
    """Embed or read the pictures searched, the reference pictures, the concepts and the texts of the classes."""
    held, wanted = config.embeddings, _needs_reference(config)
    if held is None and wanted and config.split == "train":
        raise InputError(
            "split: train is where references come from; search another split, or set reference=false, few_shot=null "
            "and drop the baselines and filters that need them"
        )
    if held is not None and getattr(held, config.split) is None:
        raise InputError(f"embeddings.{config.split} is null: name the split of {held.path!r} to search")
    also = ["train"] if (wanted or held is not None) and config.split != "train" else []
    made, encoder = _open(config, [config.split, *also])
    one_class(made.pictures)
    if not made.class_names:
        if held is not None:
            raise InputError(f"{held.path!r} has no class_names: a search needs them")
        raise InputError("the pictures have no class names: give class folders, or a label column with names")
    names = descriptions = None
    if encoder is not None:
        names = embed_names(encoder, made.class_names, config.classes.templates, config.encoder.cache)
        descriptions = describe_classes(config.classes, encoder, made.class_names, config.encoder.cache)
    elif held is not None and held.classes is not None:
        names = read_class_texts(held, made.class_names, made.pictures.dim)
    return replace(made, class_names=_distinct(made.class_names), class_texts=names, descriptions=descriptions)


def _open(config: RunConfig | SearchConfig, names: Iterable[str]) -> tuple[Inputs, Encoder | None]:
    """Splits and concept bank, with the encoder that made them, unless they were made elsewhere."""
    start = time.perf_counter()
    held = config.embeddings
    encoder, notes = None, []
    if held is None:
        concepts, prompts = _cheap_checks(config, next(iter(names)))
        encoder = open_encoder(config.encoder)
        if encoder.domain is not None and (note := encoder.domain.note(prompts or concepts, config.images.spec)):
            notes.append(_said(f"{encoder.spec}: {note}", DomainWarning))
    splits: dict[str, Embeddings] = {}
    opened: dict[str, float] = {}
    skipped: list[tuple[str, str, str]] = []
    for name in names:
        began = time.perf_counter()
        if encoder is not None:
            images = open_images(config.images, name)
            skipped += [(name, *picture) for picture in images.skipped]
            notes += [line for line in getattr(images, "notes", ()) if line not in notes]
            with _already_said():
                splits[name] = embed_pictures(encoder, images, config.encoder.batch_size, config.encoder.cache)
        elif held is not None and (theirs := getattr(held, name)) is not None:
            splits[name] = read_vectors(held.path, theirs, held.concept_labels)
        opened[name] = time.perf_counter() - began
    if skipped:
        listed = "; ".join(f"{name!r}: {reason}" for _, name, reason in skipped[:8])
        more = f"; and {len(skipped) - 8} more" if len(skipped) > 8 else ""
        notes.append(_said(f"{len(skipped)} pictures that cannot be read are left out: {listed}{more}"))
    class_names = next((split.class_names for split in splits.values() if split.class_names), ())
    known: dict[str, Any] | None = None
    if encoder is not None:
        train = splits.get("train")
        with _already_said():
            bank = embed_concepts(config, encoder, class_names, None if train is None else train.vectors)
        if bank.record["dropped"]:
            count, lines = len(bank.names), dropped_lines(bank.record["dropped"])
            left = f"; and for {len(lines) - 8} more reasons" if len(lines) > 8 else ""
            notes.append(_said(f"{count} concepts are used: {'; '.join(lines[:8])}{left}"))
        known = {"spec": encoder.spec, "fingerprint": encoder.fingerprint, "precision": encoder.precision}
    else:
        assert held is not None
        bank = read_concepts(held)
        if held.encoder is not None:
            known = {"spec": held.encoder, "fingerprint": None}
    made = Inputs(splits, class_names, bank, known, opened=opened, notes=tuple(notes), skipped=tuple(skipped))
    if made.pictures.dim != bank.vectors.shape[1]:
        raise InputError(
            f"images have {made.pictures.dim} dimensions and concepts {bank.vectors.shape[1]}: "
            "embed both with the same encoder"
        )
    return replace(made, seconds=time.perf_counter() - start), encoder


def _cheap_checks(config: RunConfig | SearchConfig, split: str) -> tuple[Sequence[str], list[str] | None]:
    """Read the concepts, and look through a folder: what is wrong there is said before anything heavy is loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of it is said when the pictures are opened
        if not config.images.spec.startswith(("hub:", "parquet:")):  # whose opening takes long
            open_images(config.images.model_copy(update={"on_error": "raise"}), split)
        concepts, prompts = open_concepts(config.concepts)
    # Concepts that bring their vectors are not read by the encoder.
    return concepts.names if concepts.vectors is None else (), prompts


def _said(note: str, kind: type[DataWarning] = DataWarning) -> str:
    warnings.warn(note, kind, stacklevel=3)
    return note


@contextlib.contextmanager
def _already_said() -> Iterator[None]:
    """Keep the encoder's domain from being said once more for every part that is embedded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        yield


def _needs_reference(config: SearchConfig) -> bool:
    filters = config.concepts.filters
    return bool(
        config.reference
        or config.few_shot
        or {"decomposer", "linear_probe"} & set(config.baselines)
        or (filters is not None and filters.min_activation is not None)
    )


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Tell classes of one name apart: ImageNet has two called "missile"."""
    return tuple(name if names.index(name) == k else f"{name} (class {k})" for k, name in enumerate(names))
