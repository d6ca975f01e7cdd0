"""Saved models: find one, load it with the encoder it was trained on, and turn pictures into its input."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from sparsecbm._base.errors import DomainWarning, StoredFileError
from sparsecbm._base.files import read_json
from sparsecbm._base.hub import NOT_PUBLISHED
from sparsecbm.config.schema import EmbeddingsConfig, ImagesConfig

if TYPE_CHECKING:
    from sparsecbm.encoders import Encoder
    from sparsecbm.estimators import SparseCBMClassifier
    from sparsecbm.estimators.inference import InferenceModel


Classifier = TypeVar("Classifier", bound="SparseCBMClassifier | InferenceModel")


@dataclass(frozen=True, eq=False)
class StoredModel(Generic[Classifier]):
    """A fitted classifier, where it lies, and what it was trained on; its encoder is loaded when it is first used.

    `spec` says where the encoder lies now, if elsewhere than at training, and `device` where to run it.
    """

    path: Path
    classifier: Classifier
    spec: str | None = None
    device: str = "auto"

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder that the model was trained on; see `model_encoder`."""
        return model_encoder(self, self.spec, device=self.device)

    @contextlib.contextmanager
    def within_domain(self) -> Iterator[Encoder]:
        """The encoder, for picture files: where it does not know what the model was trained on, that is said once."""
        encoder, known = self.encoder, self.metadata
        spec = (known.get("images") or {}).get("spec")
        texts = (known.get("concepts") or {}).get("prompts") or self.classifier.concept_names_
        if encoder.domain is not None and (note := encoder.domain.note(texts, spec)):
            warnings.warn(f"{encoder.spec}: {note}", DomainWarning, stacklevel=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DomainWarning)
            yield encoder

    @property
    def metadata(self) -> dict[str, Any]:
        """Free JSON that `train` stored with the model."""
        return getattr(self.classifier, "metadata_", None) or {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class that the model knows, parallel to its scores' columns."""
        return tuple(map(str, self.metadata.get("class_names") or self.classifier.classes_.tolist()))

    @property
    def images(self) -> ImagesConfig | None:
        """The pictures it was trained on; None for vectors made elsewhere, or where it does not say."""
        stored = self.metadata.get("images")
        hidden = stored is None or NOT_PUBLISHED in str(stored.get("spec"))
        return None if hidden else ImagesConfig.model_validate(stored)

    @property
    def embeddings(self) -> EmbeddingsConfig | None:
        """The vectors made elsewhere it was trained on; None for pictures, or where the model does not say."""
        stored = self.metadata.get("embeddings")
        return None if stored is None else EmbeddingsConfig.model_validate(stored)


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model that sparsecbm wrote, going by its description."""
    try:
        config = read_json(path / "config.json")
    except StoredFileError:
        return False
    return isinstance(config, dict) and config.get("format") == "sparsecbm-model"


@overload
def load_model(
    path: str | Path, *, inference: Literal[True], encoder: str | None = None, device: str = "auto"
) -> StoredModel[InferenceModel]: ...
@overload
def load_model(
    path: str | Path, *, inference: Literal[False] = False, encoder: str | None = None, device: str = "auto"
) -> StoredModel[SparseCBMClassifier]: ...
def load_model(
    path: str | Path, *, inference: bool = False, encoder: str | None = None, device: str = "auto"
) -> StoredModel:
    """Load a model from its folder, or from the output folder of `train`.

    Parameters
    ----------
    path : str or Path
    inference : bool
        Only to predict and explain, which loads much faster: see `sparsecbm.estimators.inference`.
    encoder : str, optional
        Where the encoder lies now; None takes the spec it had at training.
    device : str
        Where to run both; see `load_encoder`.

    Raises
    ------
    StoredFileError
        If there is no model, or a file of it is missing, foreign or tampered with.
    """
    path = Path(path)
    if not path.exists():
        raise StoredFileError(f"there is no model {str(path)!r}: expected a folder written by `sparsecbm train`")
    if not path.is_dir():
        raise StoredFileError(f"{str(path)!r} is a file: expected the folder of a model")
    # An output folder holds the model in model/; a model folder holds its files itself.
    inner = path / "model"
    folder = inner if inner.is_dir() else path
    if folder is path and not any(path.glob("*.json")):
        raise StoredFileError(f"{str(path)!r} holds no model: expected a folder written by `sparsecbm train`")
    if inference:
        from sparsecbm.estimators.inference import InferenceModel

        return StoredModel(folder, InferenceModel.load(folder, device), encoder, device)
    from sparsecbm.estimators import SparseCBMClassifier

    classifier = SparseCBMClassifier.load(folder, class_names=False).set_params(device=device)
    return StoredModel(folder, classifier, encoder, device)


def model_encoder(
    model: StoredModel, spec: str | None = None, *, device: str = "auto", precision: str | None = None
) -> Encoder:
    """Load the encoder that a model was trained on and check that it is the same.

    Parameters
    ----------
    model : StoredModel
    spec : str, optional
        Where the encoder lies now; None takes the spec it had at training.
    device : str
        See `load_encoder`.
    precision : str, optional
        None takes the precision of training.

    Raises
    ------
    InputError
        If the model was trained on vectors whose encoder is not known and none is given, or the encoder is another one:
        its embeddings would mean something else.
    """
    from sparsecbm.encoders.remembered import remembered_encoder

    return remembered_encoder(
        model.metadata.get("encoder"),
        model.classifier.n_features_in_,
        spec=spec,
        device=device,
        precision=precision,
        what=f"model {str(model.path)!r}",
    )
