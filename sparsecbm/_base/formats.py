"""Numbers of formats, and what earlier versions wrote brought up to date: CONTRIBUTING says when one goes up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sparsecbm._base.errors import StoredFileError

Step: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes the next format of a description."""

MODEL_STEPS: list[Step] = []
CONFIG_STEPS: list[Step] = []


def current(steps: Sequence[Step]) -> int:
    """Number of the format that is written: 1, and one more for each step."""
    return len(steps) + 1


def brought_up(described: dict[str, Any], steps: Sequence[Step], what: str) -> dict[str, Any]:
    """Take ``format_version`` out of a description and bring it from there to the current format.

    Raises
    ------
    StoredFileError
        If the format is none of those that were, such as a later one.
    """
    version = described.pop("format_version", None)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= current(steps):
        raise StoredFileError(
            f"{what} has format version {version!r}, this version of sparsecbm reads up to {current(steps)}: "
            "upgrade sparsecbm or make it again"
        )
    for step in steps[version - 1 :]:
        described = step(described)
    return described
