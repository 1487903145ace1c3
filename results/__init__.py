"""Run records and the tables made from them: everything that is written down, nothing that is computed with torch."""
