"""Accelerators that are not here: what they have, programs compiled for them, and what those do."""

from emsam_jax.targets.cards import TargetDevices, parse_target
from emsam_jax.targets.compilers import COMPILER_OPTIONS, devices_of
from emsam_jax.targets.program import Program, read_program

__all__ = ["COMPILER_OPTIONS", "Program", "TargetDevices", "devices_of", "parse_target", "read_program"]
