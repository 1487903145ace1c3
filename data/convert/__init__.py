"""Conversion of other data into a corpus: `python -m data.convert html SITE OUT`."""
