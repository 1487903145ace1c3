"""Corpora, tokenizers, sampling and batches: everything between files on disk and the Batch an objective reads."""
