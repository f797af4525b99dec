class EngineError(ValueError):
    """Something about the cluster that a user can put right, said in one sentence."""


class StoppedError(EngineError):
    """The run ended before all was tried, because a signal came or the scheduler was lost; it goes on when called."""


class LedgerError(ValueError):
    """Something about a run's output that a user can put right, said in one sentence."""


class LockLostError(LedgerError):
    """The output is another run's by now: nothing more may be written."""
