"""Training: losses, optimiser, sharding, step, checkpoints, validation, and the loop that joins them."""
