"""What a corpus holds and what a run would make of it, before it is trained on: `python -m data.audit CORPUS`."""
