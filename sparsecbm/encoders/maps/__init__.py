"""Where in the picture an encoder sees what: maps whose sum, with a rest that has no place, is the score."""

from sparsecbm.encoders.maps.attribution import ImageMaps, map_images

__all__ = ["ImageMaps", "map_images"]
