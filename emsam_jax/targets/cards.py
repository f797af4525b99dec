"""Accelerators by name, with their makers' figures: what a target such as 8xh200 or v5e:2x4 has."""

import dataclasses
import difflib
import math
import re

from emsam_jax.errors import UserError

GB, GIB, TERA = 1e9, 2**30, 1e12
_SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class Card:
    """One device. Rates are those of dense arithmetic, as its maker states them."""

    name: str
    platform: str  # cuda or tpu
    memory: float  # bytes
    bandwidth: float  # bytes a second, of that memory
    bfloat16: float  # operations a second
    float32: float  # as XLA computes convolutions of float32 by default: TF32 on CUDA, in bfloat16 on TPU
    link: float  # bytes a second that a device sends to its neighbours
    cuda: "CudaFacts | None" = None

    def rate(self, dtype: str) -> float:
        return self.bfloat16 if dtype == "bfloat16" else self.float32

    @property
    def room(self) -> int:
        """Returns the bytes that XLA takes of the memory for programs."""
        return int(_SHARE * self.memory)


@dataclasses.dataclass(frozen=True)
class CudaFacts:
    """What XLA asks of a CUDA device beside its memory, to choose kernels for it."""

    capability: tuple[int, int]
    cores: int
    clock_ghz: float
    lanes: int = 128  # a core's float32 units
    threads: int = 2048  # a core's
    shared: int = 233472  # bytes of shared memory a core
    l2: int = 50 * 2**20  # bytes


def _cuda(name: str, memory: float, rates: tuple[float, float, float, float], facts: CudaFacts) -> Card:
    """`rates`: memory in GB/s, bfloat16 and TF32 in tera-operations/s, link in GB/s."""
    bandwidth, bfloat16, tf32, link = rates
    return Card(name, "cuda", memory * GIB, bandwidth * GB, bfloat16 * TERA, tf32 * TERA, link * GB, facts)


def _tpu(name: str, memory: float, bandwidth: float, bfloat16: float, link: float) -> Card:
    return Card(name, "tpu", memory * GIB, bandwidth * GB, bfloat16 * TERA, bfloat16 * TERA, link * GB)


_AMPERE = CudaFacts((8, 0), 108, 1.41, lanes=64, shared=167936, l2=40 * 2**20)
_HOPPER = CudaFacts((9, 0), 132, 1.98)
_ADA = CudaFacts((8, 9), 128, 2.52, threads=1536, shared=102400, l2=72 * 2**20)
# Data sheets of NVIDIA (A100 80GB SXM, H100 SXM, H200, B200 of HGX, GeForce RTX 4090, L40S) and Google Cloud's pages of
# TPU versions. Memory of CUDA devices is what the driver leaves of it.
CARDS = {
    card.name: card
    for card in (
        _cuda("a100", 79.2, (2039.0, 312.0, 156.0, 300.0), _AMPERE),
        _cuda("h100", 79.1, (3350.0, 989.0, 494.0, 450.0), _HOPPER),
        _cuda("h200", 139.8, (4800.0, 989.0, 494.0, 450.0), _HOPPER),
        _cuda("rtx4090", 23.5, (1008.0, 165.0, 82.6, 32.0), _ADA),
        _cuda("l40s", 44.4, (864.0, 362.0, 183.0, 32.0), dataclasses.replace(_ADA, cores=142, l2=96 * 2**20)),
        _tpu("v4", 32.0, 1228.0, 275.0, 300.0),
        _tpu("v5e", 16.0, 819.0, 197.0, 200.0),
        _tpu("v5p", 95.0, 2765.0, 459.0, 600.0),
        _tpu("v6e", 32.0, 1640.0, 918.0, 448.0),
    )
}


@dataclasses.dataclass(frozen=True)
class TargetDevices:
    """Devices of one kind, `shape` along the axes of their network; CUDA's is hosts and cards on each."""

    name: str
    card: Card
    shape: tuple[int, ...]
    slices: int = 1  # of TPUs, each of that shape

    @property
    def devices(self) -> int:
        return self.slices * math.prod(self.shape)


_ON_A_HOST = 8  # CUDA devices


def parse_target(text: str) -> TargetDevices:
    """Reads h200, 8xh200, 2x8xh200 (hosts x cards), v5e:2x4, v5p:4x4x4 or 2xv5e:4x4 (slices)."""
    found = re.fullmatch(
        r"(?:(?P<count>[\dx]+)x)?(?P<card>[a-z]\w*?)(?::(?P<shape>\d+(?:x\d+)*))?", text.lower().strip()
    )
    card = CARDS.get(found["card"]) if found else None
    if found is None or card is None:
        word = found["card"] if found else text
        close = difflib.get_close_matches(word, CARDS, 1)
        advice = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(CARDS)}."
        raise UserError(f"--target={text}: there is no accelerator {word!r} here; {advice}")
    if card.platform == "cuda" and not found["shape"]:
        counts = tuple(map(int, (found["count"] or "1").split("x")))
        if len(counts) == 1:
            counts = (1, *counts) if counts[0] <= _ON_A_HOST else (-(-counts[0] // _ON_A_HOST), _ON_A_HOST)
        if len(counts) == 2 and min(counts) >= 1:
            return TargetDevices(text, card, counts)
    if card.platform == "tpu" and (not found["count"] or (found["shape"] and found["count"].isdecimal())):
        flat = card.name in ("v5e", "v6e")
        shape = tuple(map(int, (found["shape"] or ("1x1" if flat else "2x2x1")).split("x")))
        slices = int(found["count"] or "1")
        if len(shape) == (2 if flat else 3) and min(slices, *shape) >= 1:
            return TargetDevices(text, card, shape, slices)
    form = {
        "cuda": f"{card.name}, 8x{card.name} or 2x8x{card.name}",
        "tpu": f"{card.name}:2x4, or :2x2x2 of v4 and v5p, or two slices as 2x{card.name}:2x4",
    }
    raise UserError(f"--target={text}: expected {form[card.platform]}.")
