"""Tools beside the library: grids on machines that nothing reaches."""
