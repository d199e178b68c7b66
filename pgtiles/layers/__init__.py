"""What is on a tile: imagery, labels and targets, as SQL that the server runs and as arrays that its rows become."""
