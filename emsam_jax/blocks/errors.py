class EngineError(ValueError):
    """Something about the cluster that a user can put right, said in one sentence."""


class StoppedError(EngineError):
    """The run ended before all was tried, because a signal came or the scheduler was lost; it goes on when called."""
