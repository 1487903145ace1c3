"""Metrics of the transfer tasks: pure functions of predictions and references, each with a hand-checked test."""
