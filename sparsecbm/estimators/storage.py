"""A fitted estimator on disk: what is stored, its one schema, and ``save`` and ``load`` for every estimator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import plain
from sparsecbm._base.hub import NOT_PUBLISHED, published
from sparsecbm._base.model_files import CONFIG, holds_together, read_model, write_model
from sparsecbm._base.parameters import checked_parameters
from sparsecbm._base.texts import parse_yaml, read_text

if TYPE_CHECKING:
    from typing_extensions import Self

Arrays: TypeAlias = dict[str, NDArray[Any]]

_RUN = "config.yaml"
_PREFIX = "parameters."
"""Of the names of arrays that are parameters, not fitted."""
_NEVER_STORED = ("log_with", "log_dir")
"""What names a program, host or folder: it is nobody else's, and nothing in a file from elsewhere may choose it."""

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_Number: TypeAlias = bool | int | float
_Name: TypeAlias = Annotated[str, Field(max_length=10_000)]


class ClassRecord(BaseModel):
    """Class labels, and the dtype they had."""

    model_config = _STRICT

    dtype: Annotated[str, Field(max_length=20)]
    values: Annotated[list[_Number | _Name], Field(min_length=2)]

    def array(self) -> NDArray[Any]:
        """Labels in the dtype they had when saved.

        Raises
        ------
        ValueError
            If they are not distinct, the dtype is none that labels have, or makes texts far longer than they are: in a
            description by a stranger, ``"<U100000000"`` would take gigabytes for a few names.
        """
        if len(set(self.values)) != len(self.values):
            raise ValueError("classes: a label is there more than once")
        try:
            kind = np.dtype(self.dtype)
        except (TypeError, ValueError):
            kind = np.dtype("V1")
        if kind.hasobject:
            return np.array([*self.values, None], dtype=object)[:-1]
        natural = np.array(self.values)
        wide = kind.kind in "US" and kind.itemsize > 2 * natural.itemsize + 1024
        if natural.ndim != 1 or kind.subdtype or kind.names or kind.kind not in "biufUS" or wide:
            raise ValueError(f"classes of dtype {self.dtype!r}: expected numbers or texts of that type")
        labels = natural.astype(kind)
        if len(np.unique(labels)) != len(labels):
            raise ValueError(f"classes of dtype {self.dtype!r}: two labels are one in it")
        return labels


class GateRecord(BaseModel):
    """A gate's registered name, and what rebuilds it."""

    model_config = _STRICT

    name: str
    options: dict[str, _Number | str | None]


class ModelRecord(BaseModel):
    """``config.json`` of every estimator, checked whole before anything of it is used."""

    model_config = _STRICT

    kind: Annotated[str, Field(alias="class")]
    parameters: dict[str, Any]
    classes: ClassRecord | None = None
    """None for an estimator without classes."""
    n_features_in: Annotated[int, Field(ge=1, lt=2**31)]
    feature_names_in: list[str] = []
    concept_names: list[_Name] = []
    description_names: list[_Name] = []
    gate: GateRecord | None = None
    multilabel: bool = False
    history: list[dict[str, _Number]] = []
    certificate: dict[str, _Number] | None = None
    metadata: dict[str, Any]

    @model_validator(mode="after")
    def _fits(self) -> ModelRecord:
        n_classes = 0 if self.classes is None else len(self.classes.array())
        if len(self.feature_names_in) not in (0, self.n_features_in):
            raise ValueError(f"{len(self.feature_names_in)} feature names do not fit {self.n_features_in} features")
        if len(set(self.concept_names)) != len(self.concept_names):
            raise ValueError("a concept name is there more than once")
        names = self.metadata.get("class_names")
        texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if names is not None and not (texts and len(names) == n_classes):
            raise ValueError(f"metadata: class_names must be a list of {n_classes} texts, one a class, or not be there")
        return self


def read_record(folder: str | Path, kind: str) -> tuple[ModelRecord, Arrays]:
    """Read and check a stored model of one class.

    Raises
    ------
    StoredFileError
        If a file is missing, foreign or changed, describes another class, or holds what no model has.
    """
    arrays, config = read_model(folder)
    if config.get("class") != kind:
        raise StoredFileError(f"the folder {str(folder)!r} holds a {config.get('class')}, not a {kind}")
    with holds_together(folder):
        record = _record(config)
        for name in _NEVER_STORED:
            record.parameters.pop(name, None)
        _place(record.metadata, Path(folder))
        return record, arrays


def run_config(folder: Path) -> Path | None:
    """The configuration of the run that a model lies in the folder of, or that was copied beside it."""
    beside = [folder / _RUN, *([folder.parent / _RUN] if folder.resolve().name == "model" else [])]
    return next((path for path in beside if path.is_file()), None)


def _place(metadata: dict[str, Any], folder: Path) -> None:
    """Put back where data and encoder lie on this machine, as the configuration of the model's own run says."""
    hidden = [part for part in ("images", "embeddings", "encoder") if NOT_PUBLISHED in str(metadata.get(part))]
    path = run_config(folder) if hidden else None
    if path is None:
        return
    try:
        run = parse_yaml(read_text(path, "config"))
    except InputError:  # not as it was written: the model stands without it
        return
    if not isinstance(run, dict) or run.get("name") != metadata.get("config"):
        return
    for part in hidden:
        known = run.get(part)
        if isinstance(known, dict):
            metadata[part] = {**metadata[part], "spec": known.get("spec")} if part == "encoder" else known


def _record(config: Mapping[str, Any]) -> ModelRecord:
    try:
        return ModelRecord.model_validate(config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))[:80]
        text = f"{place}: {first['msg']}" if place else first["msg"]
        raise ValueError(text.replace("Value error, ", "")) from error


def check_arrays(arrays: Arrays, expected: Mapping[str, tuple[Any, tuple[int, ...]]]) -> None:
    """Check stored arrays.

    Parameters
    ----------
    arrays : dict of str to ndarray
    expected : mapping of str to (dtype, shape)
        Arrays that must be there. Others may be there; all must be finite numbers.

    Raises
    ------
    ValueError
        For the first that is not as expected.
    """
    for name, (dtype, shape) in expected.items():
        if name not in arrays:
            raise ValueError(f"the array {name!r} is missing")
        found = arrays[name]
        if found.shape != shape or found.dtype != dtype:
            raise ValueError(
                f"the arrays do not fit: {name!r} is {found.dtype} of shape {found.shape}, "
                f"expected {np.dtype(dtype)} of shape {shape}"
            )
    for name, value in arrays.items():
        if value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            raise ValueError(f"the array {name!r} of type {value.dtype} holds NaN or infinity, or no numbers")


class StoredEstimator:
    """``save`` and ``load``: a folder with ``model.safetensors`` and ``config.json``, no pickle.

    All parameters are stored but those that name a tracker or a folder, and everything that was fitted: a loaded model
    predicts, and fits again, as the saved one.
    """

    _ARRAY_PARAMETERS: ClassVar[tuple[str, ...]] = ()
    """Parameters that are arrays, stored as such."""
    _RESTORED: ClassVar[tuple[str, ...]] = ("concept_embeddings", "concept_names")
    """Parameters whose fitted form is stored, and which it becomes."""

    classes_: NDArray[Any]
    n_features_in_: int
    metadata_: dict[str, Any]

    def _class_labels(self) -> list[str]:
        """Names of the classes for people: those that were noted, else the labels."""
        names = (getattr(self, "metadata_", None) or {}).get("class_names")
        return list(names) if names else [str(name) for name in self.classes_.tolist()]

    def _arrays(self) -> Arrays:
        """Fitted arrays to store."""
        raise NotImplementedError

    def _extra(self) -> dict[str, Any]:
        """Further fields of `ModelRecord`."""
        return {}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        """Set what `_arrays` and `_extra` gave; raise on what does not fit."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a folder; a model that lies there is replaced, and stays if anything is refused.

        No place of this machine is written: where pictures or an encoder lie here, the run's ``config.yaml`` says.

        Parameters
        ----------
        path : path
            Made if it does not exist.

        Raises
        ------
        InputError
            If ``metadata_`` holds what JSON has not.
        StoredFileError
            If the folder cannot be written.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        given: dict[str, Any] = self.get_params(deep=False)  # type: ignore[attr-defined]
        arrays, classes = dict(self._arrays()), getattr(self, "classes_", None)
        for name in self._ARRAY_PARAMETERS:
            if given[name] is not None:
                arrays[_PREFIX + name] = np.asarray(given[name], dtype=np.float64)
        left_out = (*self._ARRAY_PARAMETERS, *self._RESTORED, *_NEVER_STORED)
        config = plain(
            {
                "class": type(self).__name__,
                "parameters": {name: _encode(value) for name, value in given.items() if name not in left_out},
                "classes": {"dtype": classes.dtype.str, "values": classes} if classes is not None else None,
                "n_features_in": self.n_features_in_,
                "feature_names_in": getattr(self, "feature_names_in_", []),
                "metadata": published(getattr(self, "metadata_", {})),
                **self._extra(),
            },
            path=lambda path: path.name,
        )
        try:
            # What cannot be read is never written.
            self._from_record(_record(config), dict(arrays))
        except ValueError as error:
            raise InputError(f"the model cannot be saved: {error}") from error
        write_model(path, arrays, config)

    @classmethod
    def load(cls, path: str | Path, *, class_names: bool = True) -> Self:
        """Read a model that `save` wrote; it predicts bit for bit as the saved one did.

        Parameters
        ----------
        path : path
            Folder of the model, or of the run of `sparsecbm train` that made it.
        class_names : bool
            Whether a model of `sparsecbm train`, which was trained on the numbers of classes, predicts their names.

        Raises
        ------
        StoredFileError
            If a file is missing, foreign or changed, or what it holds does not fit together.
        """
        path = Path(path)
        if (path / "model" / CONFIG).is_file() and not (path / CONFIG).is_file():
            path = path / "model"
        record, arrays = read_record(path, cls.__name__)
        with holds_together(path):
            model = cls._from_record(record, arrays)
            known, names = record.metadata.get("label_names"), record.metadata.get("class_names")
            if known and names and len(set(known)) == len(known) and set(names) <= set(known):
                model.classes_ = np.array(names if class_names else [known.index(name) for name in names])
        return model

    @classmethod
    def _from_record(cls, record: ModelRecord, arrays: Arrays) -> Self:
        parameters = {name: _decode(value) for name, value in record.parameters.items()}
        for name in cls._ARRAY_PARAMETERS:
            parameters[name] = arrays.pop(_PREFIX + name, None)
        model = cls(**parameters)
        checked_parameters(model)  # type: ignore[arg-type]
        if record.classes is not None:
            model.classes_ = record.classes.array()
        elif hasattr(model, "predict"):
            raise ValueError("it has no classes")
        model.n_features_in_ = record.n_features_in
        if record.feature_names_in:
            model.feature_names_in_ = np.array(record.feature_names_in, dtype=object)  # type: ignore[attr-defined]
        model.metadata_ = record.metadata
        model._restore(arrays, record)
        return model


def _encode(value: Any) -> Any:
    if isinstance(value, np.random.RandomState):
        return {"RandomState": value.get_state(legacy=False)}
    return value


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict) and set(value) == {"RandomState"}:
        state = np.random.RandomState()
        state.set_state(value["RandomState"])
        return state
    return value
