"""Class rasters as polygons, across blocks."""
