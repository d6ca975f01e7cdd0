"""The rules of Concept Matrix Search, one file each; their names are lines of `sparsecbm._base.parts`."""
