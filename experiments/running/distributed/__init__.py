"""One run in many processes: what its ranks share, average and agree on. With one process every function is idle."""
