"""When things happen: one experiment, one arm, one seed, step by step."""
