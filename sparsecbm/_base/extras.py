"""Packages that one part of sparsecbm needs and the rest does not."""

from __future__ import annotations

from importlib.util import find_spec

from sparsecbm._base.errors import InputError


def has(package: str) -> bool:
    """Whether a package is installed; it is not imported."""
    return find_spec(package) is not None


def require(package: str, extra: str, what: str) -> None:
    """Say in one line which extra brings a package that is not there; nothing is imported.

    Raises
    ------
    InputError
        If it is not installed.

    Examples
    --------
    >>> require("no_such_package", "maps", "maps of any encoder")
    Traceback (most recent call last):
    sparsecbm._base.errors.InputError: maps of any encoder: no_such_package is not here: pip install "sparsecbm[maps]"
    """
    if not has(package):
        raise InputError(f'{what}: {package} is not here: pip install "sparsecbm[{extra}]"')
