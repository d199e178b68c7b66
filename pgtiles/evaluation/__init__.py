"""What a prediction is worth: pixels, boundaries, objects, attributes, and the errors of each tile."""
