"""Tells what training takes on accelerators that are not here, as their compilers say: `--plan --target=8xh200`.

Memory, kernels and collectives are those of the compiled step; its time is a bound.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from emsam_jax.config import Config, check_patch, check_weights
from emsam_jax.model import warn_of_padding
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
from emsam_jax.training.cost import count_flops
from emsam_jax.training.plan import compile_step, put, savings
from emsam_jax.training.sharding import make_mesh

_LAYERS = 8  # that move most, said where tiles are filled up


class Bound(NamedTuple):
    config: Config
    needs: Needs | None  # of a step; None where it does not fit to be compiled

    def fits(self, target: TargetDevices) -> bool:
        return self.needs is not None and self.needs.bytes <= target.card.room

    def row(self, target: TargetDevices) -> str:
        batch, needs = self.config.optim.batch, self.needs
        if needs is None:
            return f"  {batch:>6}{DOES_NOT_FIT}"
        if needs.bytes > target.card.room:
            return f"  {batch:>6}{needs.bytes / GIB:>8.2f}  does not fit"
        return f"  {batch:>6}{needs.row()}{batch / needs.least:>18.3g}"


def plan_for(
    config: Config,
    target: TargetDevices,
    devices: Sequence[Any] | None = None,
    *,
    say: Callable[[str], None] = print,
    note: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> list[Bound]:
    """Prints what fits, and returns it: the smallest batch, the config's own, and the largest by their memory.

    `devices` that are here stand for the target's: their compiler answers, with the target's memory and rates.
    """
    devices = list(devices or devices_of(target))
    check_patch(config.model, config.data.patch, "config.data.patch")
    if not config.init_from:
        check_weights(config.model.encoder)
    if warning := warn_of_padding(config.model, config.data.patch):
        say(f"Warning: {warning}")
    say(
        f"{config.name or 'training'} on {len(devices)} x {target.card.name}, {target.card.room / GIB:.1f} GiB on "
        f"each, {config.model.dtype}: as compiled for it; nothing ran."
    )
    z, y, x = config.data.patch
    say(f"Patch {z} x {y} x {x} (z, y, x). Of each device and step:")
    say(f"  {'batch':>6}{COLUMNS}{'patches/s at most':>18}")
    found = []
    for trial in _batches(config, target, devices, note):
        say(trial.row(target))
        found += [trial] if trial.fits(target) else []
    if found:
        _tell(found[-1], say)
    else:
        _tell_savings(config, target, devices, say, note)
    return found


def bound_step(config: Config, target: TargetDevices, devices: Sequence[Any]) -> Bound:
    """Compiles a training step for the target's devices."""
    mesh = make_mesh(config.fsdp, devices)
    step = if_it_fits(compile_step, config, mesh, COMPILER_OPTIONS.get(devices[0].platform))
    if step is None:
        return Bound(config, None)
    share = config.optim.batch / len(devices)
    flops = share * count_flops(config.model, config.data.patch, training=True)
    return Bound(config, needs_of(step, flops, target.card, config.model.dtype))


def _batches(config: Config, target: TargetDevices, devices: list[Any], note: Callable[[str], None]) -> Iterator[Bound]:
    """Tries the smallest batch and the config's, then the largest that memory, which grows evenly, leaves room for."""
    smallest = len(devices) * config.optim.accumulate
    own = max(round(config.optim.batch / smallest), 1) * smallest
    sizes = []
    for batch in (smallest, own if own > smallest else 2 * smallest):
        note(f"  compiling for batches of {batch}")
        trial = bound_step(put(config, batch=batch), target, devices)
        yield trial
        if trial.needs is None or not trial.fits(target):
            return
        sizes.append((batch, trial.needs.bytes))
    (few, little), (many, much) = sizes
    each = max(much - little, 1) / (many - few)
    largest = int(few + (target.card.room - little) / each) // smallest * smallest
    if largest > many:
        note(f"  compiling for batches of {largest}")
        yield bound_step(put(config, batch=largest), target, devices)


def _tell(trial: Bound, say: Callable[[str], None]) -> None:
    assert trial.needs is not None
    program = trial.needs.program
    say(f"Of the last: transposes {program.transposes}, copies {program.copies}.")
    for kind, moved in program.collectives.items():
        say(f"  {kind}: {moved}")
    calls = sorted(program.libraries.items(), key=lambda item: -item[1])
    if calls:
        say("  " + ", ".join(f"{number} {name}" for name, number in calls))
    if program.useful < program.bytes:
        say(f"Of the bytes moved {program.useful / program.bytes:.0%} are values, the rest fills tiles. By layer:")
        for layer, traffic in itertools.islice(program.layers.items(), _LAYERS):
            say(f"  {layer or 'others'}: {traffic}")
    say(BOUND)


def _tell_savings(
    config: Config,
    target: TargetDevices,
    devices: list[Any],
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> None:
    say("Nothing fits. What saves memory, each with those before:")
    smallest = len(devices) * config.optim.accumulate
    for words, cheaper in savings(put(config, batch=smallest)):
        note(f"  compiling {words}")
        trial = bound_step(cheaper, target, devices)
        size = f"{trial.needs.bytes / GIB:>8.2f} GiB" if trial.needs else "does not fit to be compiled"
        say(f"  {words:<58}{size}")
        if trial.fits(target):
            return
