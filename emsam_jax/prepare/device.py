"""The device at hand: what it is, what a training step takes on it, and whether SAM2's weights lie there."""

from pathlib import Path
from typing import NamedTuple

from emsam_jax.config import Config
from emsam_jax.errors import UserError
from emsam_jax.storage import usable_cores

_FOLDER = "weights"  # where the documents put SAM2's
_PREFERRED = ("base_plus", "small", "tiny", "large")
# Operations a second of a training step without a trial: of a CPU's core as measured with these networks, of others
# a cautious share of what their makers name.
_RATES = {"cpu": 2e10, "gpu": 3e13, "tpu": 3e13}


class Weights(NamedTuple):
    folder: str
    size: str


class Device(NamedTuple):
    platform: str  # cpu, gpu, tpu
    kind: str
    number: int
    bytes: int  # free, of each; 0: unknown
    cores: int  # of the machine, for this process

    @property
    def name(self) -> str:
        if self.platform != "cpu":
            return f"{self.number} x {self.kind}"
        return f"{self.cores} CPU core{'s' * (self.cores > 1)}"

    def __str__(self) -> str:
        memory = f"{self.bytes / 2**30:.1f} GiB free" if self.bytes else "memory unknown"
        return f"{self.name}, {memory}"


class Timing(NamedTuple):
    patch: tuple[int, int, int]
    batch: int
    seconds: float  # a step
    bytes: int  # of each device; 0: not measured

    @property
    def measured(self) -> bool:
        return self.bytes > 0

    def __str__(self) -> str:
        if self.measured:
            return f"{self.seconds:.2g} s and {self.bytes / 2**30:.2f} GiB a step, as measured"
        return f"about {float(f'{self.seconds:.1g}'):g} s a step, as estimated from its operations"


def find_device() -> Device:
    import jax

    from emsam_jax.inference import free_bytes

    device, cores = jax.local_devices()[0], usable_cores()
    kind = "CPU" if device.platform == "cpu" else device.device_kind
    count = 1 if device.platform == "cpu" else jax.local_device_count()
    return Device(device.platform, kind, count, free_bytes(device) or 0, cores)


def find_weights(folder: str, device: Device) -> Weights | None:
    """Returns the encoder in the folder or, without one, those in weights/; on a CPU only where it is asked for."""
    from emsam_jax.model import FACTS_FILE, read_facts

    if folder:
        return Weights(folder, str(read_facts(folder)["size"]))
    if device.platform == "cpu":
        return None
    found = {}
    for facts in sorted(Path(_FOLDER).glob(f"*/{FACTS_FILE}")):
        try:
            found.setdefault(str(read_facts(str(facts.parent))["size"]), str(facts.parent))
        except UserError:
            continue
    return next((Weights(found[size], size) for size in _PREFERRED if size in found), None)


def time_steps(config: Config, device: Device) -> Timing:
    """Compiles and times a few steps: on a CPU of this batch, on accelerators of the batch that is fastest."""
    import jax

    from emsam_jax.training.plan import fastest, measure

    devices = jax.local_devices()[: device.number]
    trial = measure(config, devices) if device.platform == "cpu" else fastest(config, devices)
    if trial.seconds is None:
        raise UserError(
            f"Training with patches of {config.data.patch} (z, y, x) does not fit into the memory of {device}; give "
            "--notrial to write the config nevertheless."
        )
    return Timing(trial.config.data.patch, trial.config.optim.batch, trial.seconds, trial.bytes)


def estimate_steps(config: Config, device: Device) -> Timing:
    """Estimates a step from its operations."""
    from emsam_jax.training.cost import count_flops

    batch = 1 if device.platform == "cpu" else 4 * device.number
    flops = batch * count_flops(config.model, config.data.patch, training=True)
    speed = _RATES.get(device.platform, _RATES["gpu"]) * (device.cores if device.platform == "cpu" else device.number)
    return Timing(config.data.patch, batch, flops / speed, 0)
