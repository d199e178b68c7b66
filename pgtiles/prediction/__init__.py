"""What a model says of an area, blended into a raster table; the runs that said it."""
