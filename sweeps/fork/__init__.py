"""Runs that begin with the steps of another run: how far two of them are one, and a folder that goes on from there."""
