"""Runs on their way to MLflow: kept while it is away, each step sent once."""
