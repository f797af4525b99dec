"""What a compiled program needs of a device: memory, and the time that its slowest resource takes at least.

Time is a bound, not a forecast: no program is faster than its arithmetic at the card's full rate, than its kernels'
bytes through the card's memory, or than its collectives over the links.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from emsam_jax.model import program_bytes
from emsam_jax.targets.cards import Card
from emsam_jax.targets.program import Program, read_program

GIB = 2**30
COLUMNS = f"{'GiB':>8}{'TFLOP':>9}{'GB moved':>10}{'kernels':>9}{'MB sent':>9}{'at least':>12}  {'by':<11}"
DOES_NOT_FIT = f"{'-':>8}  does not fit"
BOUND = "Time is a bound, not a forecast: full rates, and no kernel waits for another."


class Needs(NamedTuple):
    """One device's share of a call."""

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

    def row(self) -> str:
        """Returns these as COLUMNS."""
        return (
            f"{self.bytes / GIB:>8.2f}{self.flops / 1e12:>9.3g}{self.program.bytes / 1e9:>10.3g}"
            f"{self.program.kernels:>9}{self.program.sent / 1e6:>9.3g}{1e3 * self.least:>9.3g} ms  {self.by:<11}"
        )


def needs_of(compiled: jax.stages.Compiled, flops: float, card: Card, dtype: str) -> Needs:
    program = read_program(compiled.as_text() or "")
    seconds = {
        "arithmetic": flops / card.rate(dtype),
        "memory": program.bytes / card.bandwidth,
        "links": program.sent / card.link,
    }
    return Needs(program_bytes(compiled), flops, program, seconds)


def count_operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Counts the operations by XLA's analysis of the accelerator's form before it is compiled.

    The CPU's form has loops, whose rounds the analysis does not count.
    """
    plain = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arguments)
    lowered = jax.jit(function).trace(*plain).lower(lowering_platforms=("cuda",))
    analysis = lowered.cost_analysis()
    assert analysis is not None
    return float(analysis["flops"])
