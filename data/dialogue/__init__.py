"""Conversations about pictures in LLaVA's JSON: read, written by its templates, tokenised with labels, and batched."""
