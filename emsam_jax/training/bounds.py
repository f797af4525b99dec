"""Tells what training takes on accelerators that are not here, as their compilers say: `--plan --target=8xh200`.

Memory, kernels and collectives are those of the compiled step. Time is a bound: no step is faster than its arithmetic
at the card's full rate, than its kernels' bytes through the card's memory, or than its collectives over the links.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from emsam_jax.config import Config, check_patch, check_weights
from emsam_jax.inference import out_of_memory
from emsam_jax.model import program_bytes, warn_of_padding
from emsam_jax.targets import COMPILER_OPTIONS, Program, TargetDevices, devices_of, read_program
from emsam_jax.training.cost import count_flops
from emsam_jax.training.plan import GIB, compile_step, put, savings
from emsam_jax.training.sharding import make_mesh

_SHARE = 0.9  # of a card's memory that XLA takes for a program


class Bound(NamedTuple):
    """One device's share of a step."""

    config: Config
    bytes: int  # of memory
    flops: float
    program: Program
    seconds: dict[str, float]  # at least, by what takes them

    @property
    def least(self) -> float:
        return max(self.seconds.values())

    @property
    def by(self) -> str:
        return max(self.seconds, key=lambda what: self.seconds[what])


def plan_for(
    config: Config,
    target: TargetDevices,
    devices: Sequence[Any] | None = None,
    *,
    say: Callable[[str], None] = print,
    note: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
) -> list[Bound]:
    """Prints and returns what fits: the smallest batch, the config's own, and the largest by their memory.

    `devices` that are here stand for the target's: their compiler answers, with the target's memory and rates.
    """
    devices = list(devices or devices_of(target))
    check_patch(config.model, config.data.patch, "config.data.patch")
    if not config.init_from:
        check_weights(config.model.encoder)
    if warning := warn_of_padding(config.model, config.data.patch):
        say(f"Warning: {warning}")
    limit = int(_SHARE * target.card.memory)
    say(
        f"{config.name or 'training'} on {len(devices)} x {target.card.name}, {limit / GIB:.1f} GiB on each, "
        f"{config.model.dtype}: as compiled for it; nothing ran."
    )
    z, y, x = config.data.patch
    say(f"Patch {z} x {y} x {x} (z, y, x). Of each device and step:")
    say(
        f"  {'batch':>6}{'GiB':>8}{'TFLOP':>9}{'GB moved':>10}{'kernels':>9}{'MB sent':>9}"
        f"{'at least':>11}  {'by':<12}{'patches/s at most':>18}"
    )
    found = []
    for trial in _batches(config, target, devices, limit, note):
        batch = trial.config.optim.batch
        start = f"  {batch:>6}{trial.bytes / GIB:>8.2f}"
        if trial.bytes > limit:
            say(f"{start}  does not fit")
            continue
        found.append(trial)
        say(
            f"{start}{trial.flops / 1e12:>9.3g}{trial.program.bytes / 1e9:>10.3g}{trial.program.kernels:>9}"
            f"{_sent(trial.program) / 1e6:>9.3g}{1e3 * trial.least:>8.3g} ms  {trial.by:<12}"
            f"{batch / trial.least:>18.3g}"
        )
    if found:
        _tell(found[-1].program, say)
    else:
        _tell_savings(config, target, devices, say, note)
    return found


def _batches(
    config: Config, target: TargetDevices, devices: list[Any], limit: int, note: Callable[[str], None]
) -> Iterator[Bound]:
    """Tries the smallest batch and the config's, then the largest that memory, which grows evenly, leaves room for."""
    smallest = len(devices) * config.optim.accumulate
    own = max(round(config.optim.batch / smallest), 1) * smallest
    tried: dict[int, int] = {}
    for batch in (smallest, own if own > smallest else 2 * smallest):
        trial = _try(put(config, batch=batch), target, devices, note)
        if trial is None:
            return
        yield trial
        tried[batch] = trial.bytes
        if trial.bytes > limit:
            return
    (few, little), (many, much) = tried.items()
    each = max(much - little, 1) / (many - few)
    largest = int(few + (limit - little) / each) // smallest * smallest
    if largest > many:
        trial = _try(put(config, batch=largest), target, devices, note)
        if trial is not None:
            yield trial


def _try(config: Config, target: TargetDevices, devices: list[Any], note: Callable[[str], None]) -> Bound | None:
    """Compiles a step; None where the compiler says that it does not fit."""
    note(f"  compiling for batches of {config.optim.batch}")
    mesh = make_mesh(config.fsdp, devices)
    try:
        step = compile_step(config, mesh, COMPILER_OPTIONS.get(devices[0].platform))
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        note(f"  {config.optim.batch} patches do not fit")
        return None
    program = read_program(step.as_text())
    share = config.optim.batch / len(devices)
    flops = share * count_flops(config.model, config.data.patch, training=True)
    seconds = {
        "arithmetic": flops / target.card.rate(config.model.dtype),
        "memory": program.bytes / target.card.bandwidth,
        "links": _sent(program) / target.card.link,
    }
    return Bound(config, program_bytes(step), flops, program, seconds)


def _sent(program: Program) -> int:
    """Returns the bytes that a device sends at least: a reduced array twice, once to be summed and once as the sum."""
    twice = {"all-reduce": 2}
    return sum(twice.get(kind, 1) * moved.bytes for kind, moved in program.collectives.items())


def _tell(program: Program, say: Callable[[str], None]) -> None:
    say(f"Of the last: transposes {program.transposes}, copies {program.copies}.")
    for kind, moved in program.collectives.items():
        say(f"  {kind}: {moved}")
    calls = sorted(program.libraries.items(), key=lambda item: -item[1])
    if calls:
        say("  " + ", ".join(f"{number} {name}" for name, number in calls))
    say("Time is a bound, not a forecast: full rates, and no kernel waits for another.")


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
        trial = _try(cheaper, target, devices, note)
        size = f"{trial.bytes / GIB:>8.2f} GiB" if trial else "does not fit"
        say(f"  {words:<58}{size}")
        if trial and trial.bytes <= _SHARE * target.card.memory:
            return
