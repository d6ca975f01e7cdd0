"""Configurations: what may stand in one (`schema`), and how one is read (`reading`)."""

from sparsecbm.config.reading import build_config, builtin_configs, dump_config, find_config, load_config
from sparsecbm.config.schema import RunConfig, SearchConfig, VaeConfig

__all__ = [
    "RunConfig",
    "SearchConfig",
    "VaeConfig",
    "build_config",
    "builtin_configs",
    "dump_config",
    "find_config",
    "load_config",
]
