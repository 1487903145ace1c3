"""What a run does: pre-training, the language model of tasks, transfers, dialogue, an encoder taken in."""
