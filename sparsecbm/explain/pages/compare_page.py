"""The page of a comparison of methods: one picture, one table."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparsecbm.explain.pages.base import Document


@dataclass(frozen=True, eq=False, kw_only=True)
class ComparePage(Document):
    """The page of `sparsecbm compare`.

    Parameters
    ----------
    rows : sequence of mapping
        Of `CompareResult`.
    picture : bytes
        PNG of `plot_methods`.
    **others
        See `Document`.
    """

    rows: Sequence[Mapping[str, Any]]
    picture: bytes

    template = "compare.html.j2"

    @property
    def uri(self) -> str:
        """The picture, to be shown in place."""
        return f"data:image/png;base64,{b64encode(self.picture).decode()}"
