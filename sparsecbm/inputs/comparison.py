"""What concepts are compared with: the names of classes, and pictures, by an encoder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm.config.schema import EncoderConfig, ImagesConfig
from sparsecbm.inputs.class_texts import embed_names
from sparsecbm.inputs.concepts import concept_vectors
from sparsecbm.inputs.data import embed_pictures, open_encoder, open_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsecbm.concepts import ConceptSet
    from sparsecbm.embeddings import Embeddings
    from sparsecbm.encoders import Encoder


class ComparisonOptions(TypedDict, total=False):
    """The options of `Comparison`."""

    classes: str | Path | None
    encoder: str | None
    images: str | None
    max_images: int | None
    templates: str | None


class Comparison:
    """What concepts are compared with; nothing is loaded or embedded before it is asked for.

    Parameters
    ----------
    classes : str or Path, optional
        File of class names, a name a line; or an image spec, such as birds.
    encoder : str, optional
        Spec of the encoder; without it nothing is compared.
    images : str, optional
        Image spec whose training split concepts are compared with.
    max_images : int, optional
        At most so many of them.
    templates : str, optional
        Template, or name of a template set, for concepts and class names.
    device : str
        See `load_encoder`.

    Raises
    ------
    InputError
        If there are pictures and no encoder, or the class names cannot be had.
    """

    def __init__(
        self,
        classes: str | Path | None = None,
        encoder: str | None = None,
        images: str | None = None,
        max_images: int | None = None,
        templates: str | None = None,
        device: str = "auto",
    ) -> None:
        from sparsecbm.concepts import PromptTemplates

        if images is not None and encoder is None:
            raise InputError("--images needs --encoder: pictures are compared with concept texts")
        self.class_names = () if classes is None else read_class_names(classes)
        self.spec, self.device, self.images, self.max_images = encoder, device, images, max_images
        self.patterns = tuple(PromptTemplates.of(templates))

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded once."""
        return open_encoder(EncoderConfig(spec=self.spec or "", device=self.device))

    @cached_property
    def pictures(self) -> Embeddings | None:
        """The pictures, embedded once, with their vectors; None where none are given."""
        if self.images is None:
            return None
        config = ImagesConfig(spec=self.images, max_train=self.max_images)
        return embed_pictures(self.encoder, open_images(config, "train"))

    def texts(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Embed names in the templates."""
        return embed_names(self.encoder, names, self.patterns, "disk-or-memory")

    def vectors(self, concepts: ConceptSet) -> dict[str, Any]:
        """Return what the similarity filters compare, by the names of `ConceptSet.filter`; empty without an encoder."""
        if self.spec is None:
            return {}
        return {
            "concept_embeddings": self.texts(concepts.names)
            if concepts.vectors is None
            else concept_vectors(concepts, self.encoder),
            "class_embeddings": self.texts(self.class_names) if self.class_names else None,
            "image_embeddings": None if self.pictures is None else self.pictures.vectors,
        }


def read_class_names(source: str | Path) -> tuple[str, ...]:
    """Return class names from a file (a name a line, .json or .yaml), or those of an image spec such as ``birds``.

    Raises
    ------
    InputError
        If the file holds none, or there is neither such a file nor such pictures.
    """
    from sparsecbm.concepts import ConceptSet

    path = Path(source)
    if path.is_file():
        return ConceptSet.from_file(path).names
    if path.suffix in (".json", ".yaml", ".yml", ".txt"):
        raise InputError(f"class names: there is no file {str(source)!r}; expected a name a line")
    names = tuple(open_images(ImagesConfig(spec=str(source)), "train").class_names)
    if not names:
        raise InputError(f"{str(source)!r} has no class names: give a file with a name a line")
    return names
