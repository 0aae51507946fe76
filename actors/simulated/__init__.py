"""Timed stand-ins for engine and model: the calls of the real ones, and time in place of their work."""
