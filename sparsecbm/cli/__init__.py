"""The ``sparsecbm`` command line."""

from sparsecbm.cli import cache, concepts, look, search  # noqa: F401  registers its commands
from sparsecbm.cli.commands import app, main

__all__ = ["app", "main"]
