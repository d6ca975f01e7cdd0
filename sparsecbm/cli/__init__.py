"""The ``sparsecbm`` command line."""

from sparsecbm.cli.commands import app, main

__all__ = ["app", "main"]
