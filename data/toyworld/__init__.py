"""The embedded corpus: small pictures with documents about them, generated once and written in the real formats."""
