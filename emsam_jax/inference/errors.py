class PredictionError(ValueError):
    """Something about a prediction that a user can put right, said in one sentence."""
