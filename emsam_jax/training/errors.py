class TrainingError(ValueError):
    """Something about a run that a user can put right, said in one sentence."""
