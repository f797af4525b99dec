"""Compiles with `jax.jit` and the options that suit this project's models, and measures what a program needs."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from emsam_jax.model.cpu import COMPILER_OPTIONS, QUICK_OPTIONS
from emsam_jax.model.lanes import filling_lanes


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """Jits outermost functions: jax takes compiler options nowhere else."""
    return _jit(function, COMPILER_OPTIONS, options)


def jit_once(function: Callable[..., Any], **options: Any) -> Any:
    """Jits what runs once, such as drawing random parameters."""
    return _jit(function, QUICK_OPTIONS, options)


def _jit(function: Callable[..., Any], on_cpu: dict[str, Any], options: dict[str, Any]) -> Any:
    platform = compiled_for(options)

    @functools.wraps(function)
    def traced(*arguments: Any, **named: Any) -> Any:
        with filling_lanes(platform == "tpu"):
            return function(*arguments, **named)

    return jax.jit(traced, compiler_options=on_cpu if platform == "cpu" else {}, **options)


def compiled_for(options: dict[str, Any]) -> str:
    """Returns the platform of the shardings, whose devices need not be at hand; else this process's own."""
    for sharding in jax.tree.leaves([options.get("in_shardings"), options.get("out_shardings")]):
        if isinstance(sharding, jax.sharding.Sharding):
            return next(iter(sharding.device_set)).platform
    return jax.default_backend()


def program_bytes(program: jax.stages.Compiled) -> int:
    """On each device, for one call: arguments, results that do not take a donated one's place, and temporary memory."""
    found = program.memory_analysis()
    if found is None:
        return 0
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes
