"""Checkpoints of a run as the driver sees them: written whole, checked to the last byte before they are used."""
