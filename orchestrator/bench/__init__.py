"""Benchmarks against the bare parts: what we add to the time and memory of the libraries that do the work."""
