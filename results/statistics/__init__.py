"""How sure a difference is: over seeds, over items of a test set, against the paper's orderings and claims."""
