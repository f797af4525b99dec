class EngineError(ValueError):
    """Something about the cluster that a user can put right, said in one sentence."""
