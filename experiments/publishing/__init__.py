"""From records to the tables of a folder: what it holds, what joins it, and what is printed of both."""
