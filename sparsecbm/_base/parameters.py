"""Constructor parameters of estimators: types that say their range, and one check.

An estimator writes type, range and default of a parameter once, in the signature of ``__init__``; parameters of other
types (arrays, lists of names) are left to what uses them.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Protocol, TypeAlias, Union

import numpy as np
from pydantic import AfterValidator, Field, StrictBool, StrictInt, TypeAdapter, ValidationError

from sparsecbm._base.errors import InputError, suggest


def _seed(value: Any) -> Any:
    if not (isinstance(value, np.random.RandomState) or (type(value) is int and 0 <= value < 2**32)):
        raise ValueError
    return value


def _falling(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] < value[1]:
        raise ValueError
    return value


# The text beside each type is what the error says was expected. Strict: a bool is no number, "4" neither.
Count: TypeAlias = Annotated[int, Field(ge=1, lt=2**63, strict=True), "a whole number of at least 1"]
Whole: TypeAlias = Annotated[int, Field(ge=0, lt=2**63, strict=True), "a whole number of at least 0"]
Positive: TypeAlias = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False), "a finite number above 0"]
NonNegative: TypeAlias = Annotated[
    float, Field(ge=0, strict=True, allow_inf_nan=False), "a finite number that is not negative"
]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, strict=True), "a number in [0, 1]"]
PositiveShare: TypeAlias = Annotated[float, Field(gt=0, le=1, strict=True), "a number in (0, 1]"]
PartialShare: TypeAlias = Annotated[float, Field(ge=0, lt=1, strict=True), "a number from 0 to below 1"]
Cosine: TypeAlias = Annotated[float, Field(ge=-1, le=1, strict=True), "a cosine between -1 and 1"]
OpenShare: TypeAlias = Annotated[float, Field(gt=0, lt=1, strict=True), "a number between 0 and 1"]
Counts: TypeAlias = Annotated[
    tuple[Count, ...], Field(strict=False, min_length=1), "whole numbers of at least 1, one or more"
]
Positives: TypeAlias = Annotated[
    tuple[Positive, ...], Field(strict=False, min_length=1), "finite numbers above 0, one or more"
]
Flag: TypeAlias = Annotated[bool, Field(strict=True), "True or False"]
Verbosity: TypeAlias = Annotated[StrictBool | StrictInt | None, "True, False or None"]
Text: TypeAlias = Annotated[str, Field(strict=True, min_length=1), "a text"]
ClassWeights: TypeAlias = Annotated[
    Literal["balanced"] | dict[Any, Positive], '"balanced", or a positive weight for classes by name'
]
Annealing: TypeAlias = Annotated[
    tuple[Positive, Positive],
    Field(strict=False),
    AfterValidator(_falling),
    "two positive numbers, first and last, not rising",
]
Seed: TypeAlias = Annotated[
    Any, AfterValidator(_seed), "a whole number from 0 to 2**32 - 1, or a numpy.random.RandomState"
]


class HasParameters(Protocol):
    """A scikit-learn estimator, as far as it is needed here."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name."""
        ...


def _python(value: Any) -> Any:
    """Python's own numbers and texts in place of NumPy's, and of paths."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, (list, tuple, range, set)):
        return [_python(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def checked_parameters(estimator: HasParameters) -> SimpleNamespace:
    """Return an estimator's parameters, plain, once each is of the type that ``__init__`` declares for it.

    Raises
    ------
    InputError
        For the first that is not: its name, its value and what was expected.
    """
    values = estimator.get_params(deep=False)
    for name, hint in _schema(type(estimator)).items():
        values[name] = checked(name, values[name], hint)
    return SimpleNamespace(**values)


def check_fields(options: Any) -> None:
    """Check the fields of a dataclass against the types that it declares for them; raises as `checked_parameters`."""
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        if _words(hint):
            checked(name, getattr(options, name), hint)


def check_arguments(function: Callable[..., Any], **given: Any) -> None:
    """Check arguments of a function against the types that it declares for them; raises as `checked_parameters`."""
    for name, value in given.items():
        checked(name, value, _hints(function)[name])


def checked(name: str, value: Any, hint: Any) -> Any:
    """Return one value, plain, once it is of one of the types of this module.

    Raises
    ------
    InputError
        With its name, its value and what was expected.

    Examples
    --------
    >>> checked("batch_size", np.int64(8), Count)
    8
    """
    given = _python(value)
    try:
        return _adapter(hint).validate_python(given)
    except ValidationError as error:
        literals = filter(_is_literal, (hint, *typing.get_args(hint)))
        choices = [word for literal in literals for word in typing.get_args(literal)]
        near = suggest(given, choices) if isinstance(given, str) else ""
        raise InputError(f"{name}={_short(value)}: expected {' or '.join(_words(hint))}{near}") from error


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function, include_extras=True)


@functools.cache
def _schema(estimator: type) -> dict[str, Any]:
    """Types of the parameters that can be checked."""
    hints = _hints(estimator.__init__)  # type: ignore[misc]  # this class's own
    return {name: hint for name, hint in hints.items() if name != "return" and _words(hint)}


def _is_literal(hint: Any) -> bool:
    return typing.get_origin(hint) is Literal


def _words(hint: Any) -> list[str]:
    """What a type expects, in words; nothing for a type that is not checked here."""
    if hint is NoneType:
        return ["None"]
    if _is_literal(hint):
        return [repr(word) for word in typing.get_args(hint)]
    if typing.get_origin(hint) is Annotated:
        return [text for text in hint.__metadata__ if isinstance(text, str)]
    if typing.get_origin(hint) in (Union, UnionType):
        parts = [_words(part) for part in typing.get_args(hint)]
        return [word for part in parts for word in part] if all(parts) else []
    return []
