"""A run as it stands in its folder: metrics, log, status, checkpoints, verdict; and who writes them."""
