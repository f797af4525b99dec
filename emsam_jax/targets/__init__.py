"""Accelerators that are not here: what they have, programs compiled for them, and what those need."""

from emsam_jax.targets.cards import GIB, TargetDevices, parse_target
from emsam_jax.targets.compilers import COMPILER_OPTIONS, devices_of, if_it_fits, out_of_memory
from emsam_jax.targets.needs import BOUND, COLUMNS, DOES_NOT_FIT, Needs, count_operations, needs_of

__all__ = [
    "BOUND",
    "COLUMNS",
    "COMPILER_OPTIONS",
    "DOES_NOT_FIT",
    "GIB",
    "Needs",
    "TargetDevices",
    "count_operations",
    "devices_of",
    "if_it_fits",
    "needs_of",
    "out_of_memory",
    "parse_target",
]
