"""A rank's part of a checkpoint on its way to a disk or an object store, and back."""
