class VolumeError(ValueError):
    """Something about a volume that a user can put right, said in one sentence."""
