"""Tools beside the library: grids on machines that nothing reaches; the lock, the print and the picture."""
