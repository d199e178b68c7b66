"""The one read path, and what a stream of batches needs: order, workers, ranks, survival, resumption."""
