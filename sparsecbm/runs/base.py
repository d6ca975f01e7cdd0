"""What every run returns."""

from __future__ import annotations

from typing import Any

from sparsecbm._base.files import plain


class Result:
    """What a run returns: typed, free of torch, printable as JSON."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))
