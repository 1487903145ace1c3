"""Sampling, rendering and batching: from the raw documents of a corpus to the Batch an objective reads."""
