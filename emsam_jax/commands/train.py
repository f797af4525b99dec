"""Trains a model to predict affinities, and resumes where the same command stopped.

    emsam train --config=cremi:frozen --workdir=runs/cremi
    emsam train --config=cremi:frozen --plan --config.optim.batch=8

The run's folder keeps config.json, metrics.jsonl, tensorboard/, samples/, curves.png and checkpoints/. Exit codes: 0
when the last step is done, 1 after a mistake, which is said in one sentence, and 75 when it was stopped (SIGTERM,
Ctrl-C) with everything saved.
"""

import os
from pathlib import Path

from emsam_jax.command_line import FLAGS, define_config, flags, group, required
from emsam_jax.errors import UserError

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emsam_jax" / "compiled"


def define_flags() -> None:
    with group("Experiment"):
        define_config()
        flags.DEFINE_bool("allow_overlap", False, "Let training, validation and test volumes share voxels.")
    with group("Output and resuming"):
        flags.DEFINE_string("workdir", None, "Run's `FOLDER`; if it holds checkpoints, training resumes at the newest.")
        flags.DEFINE_bool(
            "plan", False, "Measure which patch and batch fit on these devices, and how long training takes; then exit."
        )
        flags.DEFINE_string(
            "target",
            "",
            "With --plan: `DEVICES` that need not be here, such as h200, 8xh200, rtx4090, v5e:2x4 or 2xv5e:4x4; their "
            "compiler says what fits.",
        )
        flags.DEFINE_string(
            "compilation_cache", str(CACHE), "Cache `FOLDER` of compiled programs, for later runs; empty for none."
        )
    with group("Many hosts"):
        flags.DEFINE_bool("distributed", False, "Join the processes of all hosts into one run.")
        flags.DEFINE_string(
            "coordinator", "", "Address of the first process, `HOST:PORT`; found by itself on Slurm and TPU pods."
        )
        flags.DEFINE_integer("processes", 0, "Number of processes in the run, with --coordinator.")
        flags.DEFINE_integer("process", -1, "Index of this process, from 0, with --coordinator.")


def main(overrides: list[str]) -> None:
    config = required("config")
    if FLAGS.target and not FLAGS.plan:
        raise UserError("--target names devices to plan for: give --plan too, or leave it out to train here.")
    # Here, because a page of help and a mistake in the flags have no use for jax.
    from emsam_jax.training.command import Processes, start

    start(
        config,
        overrides,
        FLAGS.workdir,
        planning=FLAGS.plan,
        target=FLAGS.target,
        allow_overlap=FLAGS.allow_overlap,
        compilation_cache=FLAGS.compilation_cache,
        processes=Processes(FLAGS.coordinator, FLAGS.processes, FLAGS.process) if FLAGS.distributed else None,
    )
