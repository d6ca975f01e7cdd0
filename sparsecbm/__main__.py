"""``python -m sparsecbm``: the same command as ``sparsecbm``, for ``accelerate launch -m sparsecbm``."""

from sparsecbm.cli import main

if __name__ == "__main__":
    main()
