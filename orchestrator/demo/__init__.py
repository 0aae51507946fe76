"""The embedded default: a tiny model and the arithmetic it was warm-started on, so that a demo needs no network."""
