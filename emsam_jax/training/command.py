"""The command line of train.py, for one process or several that are joined into one run."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from emsam_jax.config import load_config, split_overrides
from emsam_jax.errors import UserError
from emsam_jax.training.loop import train
from emsam_jax.training.plan import plan

FLAGS = flags.FLAGS
_PATIENCE = 4 * 3600  # seconds


def define_flags() -> None:
    """As the program's own, which are those that --help lists."""
    _define_flags()
    for flag in FLAGS.get_key_flags_for_module(__name__):
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _define_flags() -> None:
    flags.DEFINE_string(
        "config", None, "file.py[:variant] or config.json; --config.field=value overrides.", required=True
    )
    flags.DEFINE_string("workdir", None, "The run's folder; where it has a checkpoint, the run goes on.")
    flags.DEFINE_bool("allow_overlap", False, "Let training, validation and test volumes hold the same voxels.")
    flags.DEFINE_bool("plan", False, "Say what fits on these devices and how long it takes, and train nothing.")
    flags.DEFINE_bool("distributed", False, "One of several processes of a run, each with its own devices.")
    flags.DEFINE_string("coordinator", "", "host:port of the first process, where it isn't found by itself.")
    flags.DEFINE_integer("processes", 0, "How many there are, where it isn't found by itself.")
    flags.DEFINE_integer("process", -1, "Which of them this is, from 0, where it isn't found by itself.")
    flags.DEFINE_string(
        "compilation_cache",
        str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emsam_jax" / "compiled"),
        "Folder for what has been compiled, which spares it the next run; empty for none.",
    )


def run() -> None:
    """Flags, then one call."""
    define_flags()
    arguments, overrides = split_overrides(sys.argv)

    def main(_: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # jax and orbax tell of each of their steps
        if FLAGS.compilation_cache:
            jax.config.update("jax_compilation_cache_dir", FLAGS.compilation_cache)
        try:
            config = load_config(FLAGS.config, overrides)
            if FLAGS.plan:
                plan(config)
                return
            if not FLAGS.workdir:
                raise UserError("Give --workdir=FOLDER, where the run is kept; or --plan, to see what fits.")
            together = joined(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
            with together if FLAGS.distributed else contextlib.nullcontext():
                train(config, FLAGS.workdir, allow_overlap=FLAGS.allow_overlap)
        except UserError as problem:
            sys.exit(f"train: {problem}")
        except OSError as problem:
            where = problem.filename or FLAGS.workdir
            sys.exit(f"train: {where} cannot be written or read: {problem.strerror or problem}.")

    app.run(main, argv=arguments)


@contextlib.contextmanager
def joined(coordinator: str = "", processes: int = 0, process: int = -1) -> Iterator[None]:
    """Before anything touches a device. What is not given is found on Slurm, TPU pods, Kubernetes, with MPI."""
    given = bool(coordinator), processes > 0, process >= 0
    if any(given) and not all(given):
        raise UserError("Expected all of --coordinator, --processes and --process, or none of them.")
    if all(given) and process >= processes:
        raise UserError(f"--process counts from 0 to --processes - 1 = {processes - 1}; found {process}.")
    try:
        # At the end the others wait for the first one, which waits for the last validation.
        options: dict[str, Any] = {"shutdown_timeout_seconds": _PATIENCE}
        if all(given):
            options |= {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        jax.distributed.initialize(**options)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"--distributed: could not join the other processes ({_first_line(error)}); give --coordinator=host:port "
            "of the first process, --processes and --process."
        ) from error
    yield
    jax.distributed.shutdown()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
