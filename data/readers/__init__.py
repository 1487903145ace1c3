"""Readers: the files of each published corpus and downstream set as documents, pairs and splits."""
