"""Calls a command once for each list of arguments, in one process: `python called_in_turn.py MODULE CASES.json`.

Prints a line of JSON for each: exit status, what it said on stderr, seconds of computing, the process's peak in MiB.
What raises anything that no command ends in a sentence for ends this.
"""

import contextlib
import importlib
import io
import json
import sys
import time
from pathlib import Path
from types import ModuleType

from emsam_jax import command_line
from emsam_jax.command_line import FLAGS, flags


def call(command: ModuleType, arguments: list[str]) -> int:
    """As `command_line.run` does, which can be called once in a process."""
    for name in FLAGS:
        FLAGS[name].unparse()
    try:
        _, *rest = FLAGS(["command", *arguments])
        command_line._end_in_a_sentence(command.main, rest, "command")
    except flags.Error as error:
        print(f"command: {error}", file=sys.stderr)
        return 1
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return int(ended.code or 0)
    return 0


def call_each(module: str, file: str) -> None:
    command = importlib.import_module(module)
    command.define_flags()
    for arguments in json.loads(Path(file).read_text()):
        said, begun = io.StringIO(), time.process_time()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = call(command, arguments)
        print(json.dumps([status, said.getvalue(), time.process_time() - begun, peak_mib()]), flush=True)


def peak_mib() -> int:
    """Of this process; ru_maxrss begins at what the parent had when it started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


if __name__ == "__main__":
    call_each(*sys.argv[1:])
