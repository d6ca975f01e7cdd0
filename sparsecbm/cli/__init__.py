"""The ``sparsecbm`` command line."""

# The help page lists the commands in this order.
# isort: off
from sparsecbm.cli import train, init, frontier, evaluate, predict, compare_data, compare, adapt  # noqa: F401
from sparsecbm.cli import search, edit, export, app, vae, info, concepts, cache  # noqa: F401

# isort: on
from sparsecbm.cli.base import main

__all__ = ["main"]
