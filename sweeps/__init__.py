"""Which experiments run: comparisons of arms and seeds, and the whole command line."""
