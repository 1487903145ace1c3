"""Eight benchmarks of multimodal dialogue: a release's files read, answers judged, the paper's number computed.

Nothing here imports torch: answers that any program wrote are scored on any machine (`python -m experiments.score`).
"""
