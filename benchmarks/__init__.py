"""Measurements of the suite's own parts; each is a command that prints what it measured and on what."""
