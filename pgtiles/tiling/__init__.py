"""Which tiles: the lattice, the land, where tiles are laid, drawn, dealt to splits and kept."""
