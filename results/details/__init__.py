"""What is published beside the records of a table: scores of single items, learning curves, samples."""
