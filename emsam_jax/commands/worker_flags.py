"""Flags of the workers that do the blocks of a command."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from distributed import Client

from emsam_jax.blocks.dask import Tls, Workers, run_stage
from emsam_jax.command_line import FLAGS, flags, group


def define_workers() -> None:
    with group("Workers"):
        flags.DEFINE_integer("workers", 0, "Number of worker processes or jobs; 0: one a core of this machine.")
        flags.DEFINE_string("memory", "auto", "Memory limit of each worker, `BYTES` such as 8GiB.")
        flags.DEFINE_string(
            "cluster", "", "Queueing system, `NAME`, whose jobs are the workers: slurm, pbs, sge, lsf or another."
        )
        flags.DEFINE_multi_string(
            "job", [], "Option of dask-jobqueue, `NAME=VALUE`, such as queue=gpu or walltime=08:00:00. May be repeated."
        )
        flags.DEFINE_string(
            "scheduler", "", "Address of a Dask scheduler whose workers do the work, `tls://HOST:PORT`."
        )
        flags.DEFINE_string("tls_ca", "", "Certificate authority `FILE` for a scheduler at tls://.")
        flags.DEFINE_string("tls_cert", "", "Certificate `FILE` of this client for a scheduler at tls://.")
        flags.DEFINE_string("tls_key", "", "Private key `FILE` of this client for a scheduler at tls://.")
        flags.DEFINE_string(
            "dashboard", "", "Address of Dask's dashboard, `[HOST]:PORT` such as :8787; on this machine without HOST."
        )


def named_workers() -> Workers:
    """As the flags name them."""
    return Workers(
        FLAGS.workers,
        FLAGS.memory,
        FLAGS.scheduler,
        Tls(FLAGS.tls_ca, FLAGS.tls_cert, FLAGS.tls_key),
        FLAGS.cluster,
        tuple(FLAGS.job),
        FLAGS.dashboard,
    )


def open_workers(workers: Workers, opened: ExitStack) -> Callable[..., Any]:
    """Returns what does a stage's blocks on the workers, which it opens for the first one until the stack is closed."""

    @functools.cache
    def connect() -> Client:
        return opened.enter_context(workers.open())

    return lambda *stage, **settings: run_stage(connect(), *stage, **settings)
