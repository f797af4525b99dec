"""The body of train.py: losses, optimiser, sharding, step, checkpoints, validation, and the loop."""
