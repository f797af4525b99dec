"""The body of `emsam train`: losses, optimiser, sharding, step, checkpoints, validation, and the loop."""
