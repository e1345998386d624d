"""Tools beside the library: grids on machines without a network; the lock file, the printed book, README's picture."""
