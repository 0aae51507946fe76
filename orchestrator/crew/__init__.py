"""The workers of a run: what they are started with, what a step asks of them, what follows when one is lost."""
