"""Tells what prediction takes on accelerators that are not here: the programs of its blocks, as compiled for them."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from emsam_jax.blocks import Plan
from emsam_jax.inference.fitting import Fitted, compile_for, usual_batch
from emsam_jax.inference.programs import AffinityModel, Programs
from emsam_jax.inference.settings import Prediction
from emsam_jax.inference.sweep import Sweep
from emsam_jax.targets import (
    BOUND,
    COLUMNS,
    COMPILER_OPTIONS,
    DOES_NOT_FIT,
    GIB,
    Needs,
    TargetDevices,
    devices_of,
    if_it_fits,
    needs_of,
)


class Called(NamedTuple):
    name: str
    calls: int  # for all blocks
    needs: Needs  # of one

    @property
    def least(self) -> float:
        return self.calls * self.needs.least


class PredictionBound(NamedTuple):
    """Of each device."""

    windows: int  # of all blocks
    at_once: int
    bytes: int  # of memory
    programs: tuple[Called, ...]
    sent: int  # bytes to the device for a block
    fetched: int  # bytes of a block

    @property
    def least(self) -> float:
        """Returns the seconds of all blocks: the programs run one after the other."""
        return sum(called.least for called in self.programs)


def bound_prediction(
    model: AffinityModel,
    settings: Prediction,
    plan: Plan,
    target: TargetDevices,
    devices: Sequence[Any] | None = None,
    *,
    dtype: str,
    say: Callable[[str], None] = print,
    note: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> PredictionBound | None:
    """Prints and returns what predicting the plan takes; None where not even one window fits at once.

    The model's parameters may be abstract. `devices` that are here stand for the target's.
    """
    devices = list(devices or devices_of(target))
    sweep = Sweep(model, settings, plan)
    options = COMPILER_OPTIONS.get(devices[0].platform)
    programs = Programs(devices, coarse=settings.coarse, encode_once=settings.encode_once, options=options)
    model = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=programs.everywhere), model)
    z, y, x = plan.region.shape
    window, block = (" x ".join(map(str, sides)) for sides in (sweep.grid.window, plan.block))
    say(
        f"Prediction on {len(devices)} x {target.card.name}, {target.card.room / GIB:.1f} GiB on each, {dtype}: as "
        "compiled for it; nothing ran."
    )
    say(
        f"{z} x {y} x {x} voxels (z, y, x) in blocks of {block}, {len(plan)} in all; {sweep.count_windows()} "
        f"windows of {window}. Of each device and call:"
    )
    say(f"  {'':<11}{'calls':>9}{COLUMNS}")
    fit = _fit(model, sweep, programs, target, say=say, note=note)
    if fit is None:
        say("Nothing fits: choose a smaller predict.block, predict.window or model.")
        return None
    fitted, compiled = fit
    calls = sweep.count_calls(fitted)
    found = []
    for name, program in compiled.items():
        flops = programs.operations(name, *fitted.arguments[name]) if name in fitted.arguments else 0.0
        found.append(Called(name, calls[name], needs_of(program, flops, target.card, dtype)))
        say(f"  {name:<11}{calls[name]:>9}{found[-1].needs.row()}")
    item = jnp.dtype(settings.dtype).itemsize
    bound = PredictionBound(
        sweep.count_windows(),
        fitted.batch.windows,
        fitted.bytes(sweep.extent, sweep.channels),
        tuple(found),
        4 * math.prod(sweep.extent.read_shape),
        item * sweep.channels * math.prod(plan.block),
    )
    _tell(bound, plan, say)
    return bound


def _fit(
    model: AffinityModel,
    sweep: Sweep,
    programs: Programs,
    target: TargetDevices,
    *,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> tuple[Fitted, dict[str, Any]] | None:
    """Compiles for the usual windows at once, or for half as many as often as they do not fit."""
    windows = sweep.settings.batch or usual_batch(next(iter(programs.everywhere.device_set)))
    while windows:
        note(f"  compiling for {windows} windows at once on each")
        compiled = if_it_fits(_compile, windows, model, sweep, programs)
        size = compiled[0].bytes(sweep.extent, sweep.channels) if compiled else 0
        if compiled and size <= target.card.room:
            return compiled
        say(f"  {f'{windows} at once':<20}{f'{size / GIB:>8.2f}  does not fit' if compiled else DOES_NOT_FIT}")
        windows //= 2
    return None


def _compile(
    windows: int, model: AffinityModel, sweep: Sweep, programs: Programs
) -> tuple[Fitted, dict[str, jax.stages.Compiled]]:
    """Compiles all programs in the order of their calls, for the first of the symmetries."""
    fitted = compile_for(windows, model, programs, sweep.extent, encode_once=sweep.settings.encode_once)
    shape, extent, batch = jax.ShapeDtypeStruct, sweep.extent, fitted.batch
    symmetry = sweep.symmetries[0]
    _, rows, columns = (sweep.grid.window[axis] for axis in symmetry.order)
    raw = shape(extent.read_shape, jnp.float32, sharding=programs.everywhere)
    lines = (shape((batch.columns, side), jnp.int32, sharding=programs.columns) for side in (rows, columns))
    values = jax.eval_shape(programs.decode, *fitted.arguments["decode"])
    values = shape(values.shape, values.dtype, sharding=programs.columns)
    total = shape((programs.devices, *extent.total_shape, sweep.channels), jnp.float32, sharding=programs.columns)
    weights = shape((*sweep.grid.window, sweep.channels), jnp.float32, sharding=programs.everywhere)
    at, real = shape((*values.shape[:2], 3), jnp.int32), shape(values.shape[:2], jnp.float32)
    undo, start = sweep.undo[symmetry], shape((3,), jnp.int32)
    cut = programs.cut.lower(raw, *lines, order=symmetry.order, depth=extent.sections)
    blend = programs.blend.lower(total, values, weights, at, real, undo=undo, order=symmetry.order)
    finish = programs.finish.lower(total, start, shape=sweep.plan.block, dtype=sweep.settings.dtype)
    cut, blend, finish = (lowered.compile(programs.options) for lowered in (cut, blend, finish))
    return fitted, {"cut": cut, **fitted.programs, "blend": blend, "finish": finish}


def _tell(bound: PredictionBound, plan: Plan, say: Callable[[str], None]) -> None:
    for name, _, needs in bound.programs:
        program = needs.program
        moved = [f"transposes {program.transposes}", f"copies {program.copies}"]
        moved += [f"{kind} {each}" for kind, each in program.collectives.items()]
        moved += [f"{number} {library}" for library, number in program.libraries.items()]
        say(f"  {name}: {', '.join(moved)}")
    say(f"Memory: {bound.bytes / GIB:.2f} GiB on each device, with {bound.at_once} windows at once.")
    sent, fetched = bound.sent / 1e6, bound.fetched / 1e6
    say(
        f"Between host and device: {sent:.3g} MB there and {fetched:.3g} MB back a block, "
        f"{(sent + fetched) * len(plan) / 1e3:.3g} GB in all."
    )
    rate = plan.region.voxels / bound.least / 1e6
    say(
        f"At least {1e3 * bound.least / bound.windows:.3g} ms a window and {bound.least:.3g} s in all: at most "
        f"{rate:.3g} Mvoxel/s. {BOUND}"
    )
    say("Each program is compiled once: all blocks have the same shapes.")
