"""From SAM2's PyTorch checkpoints to Flax. The only room that knows torch; nothing but convert/ imports it."""
