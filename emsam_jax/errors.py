"""Errors that a user can put right, each said in one sentence, also where a library raised it."""

import contextlib
import re
from collections.abc import Iterator

_LONGEST = 500  # characters of a message: paths that a damaged file names may be of any length
EXIT_STOPPED = 75  # a command's exit code: temporary failure, the same command resumes


class UserError(ValueError):
    """Something that a user can put right, said in one sentence."""


class StoppedError(UserError):
    """The run ended early, because a signal came or the scheduler was lost; the same command resumes it."""


def first_line(error: BaseException) -> str:
    """Returns the message of a library's error without TensorStore's specification and source lines, shortened."""
    if not str(error):
        return type(error).__name__
    line = re.split(r"\s\[(?=\w+=|source)", str(error).splitlines()[0])[0]
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"  # ends with why


@contextlib.contextmanager
def parsing(url: str, expected: str) -> Iterator[None]:
    """Raises UserError for whatever a library raises inside about bytes that others wrote.

    Only the library's call belongs inside; what was raised stays attached as the cause.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{url}: expected {expected}, found a damaged one: {first_line(error)[:200]}") from error
