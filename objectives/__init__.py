"""Pre-training objectives, one file each, named as in the registry; import them through `objectives.registry`."""
