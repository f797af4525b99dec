"""Compiles for accelerators that are not here: their compilers run on any machine, and need no device."""

import importlib.util
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.experimental import topologies

from emsam_jax.errors import UserError
from emsam_jax.targets.cards import TargetDevices

P = ParamSpec("P")
T = TypeVar("T")
_SETTINGS = {
    "cuda": {"CUDA_VISIBLE_DEVICES": "-1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"},
    # A compiler alone: no metadata server is asked, no chip opened.
    "tpu": {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
}
_NEEDS = {"cuda": ("jax_plugins.xla_cuda12", "gpu"), "tpu": ("libtpu", "tpu")}  # module, extra
COMPILER_OPTIONS: dict[str, dict[str, Any]] = {  # by jax's platform
    # Nothing can be timed without the device, and Triton's products want to be.
    "gpu": {"xla_gpu_enable_triton_gemm": False},
    # A tenth of the time, for a seventh more bytes and the same memory (docs/accelerators.md).
    "tpu": {"exec_time_optimization_effort": -1.0},
}


def devices_of(target: TargetDevices) -> list[Any]:
    """Returns devices to compile for; jax's own stay the CPU's."""
    platform = target.card.platform
    module, extra = _NEEDS[platform]
    if not _installed(module):
        raise UserError(
            f"--target={target.name}: expected the compiler of {platform}, found no {module.split('.')[-1]} installed; "
            f"pip install 'emsam-jax[{extra}]' (no device is needed)."
        )
    jax.config.update("jax_platforms", "cpu")
    os.environ.update(_SETTINGS[platform])
    try:
        if platform == "tpu":
            shape = "x".join(map(str, target.shape))
            options: dict[str, Any] = {"chips_per_host_bounds": [1, 1, 1]} if target.devices == 1 else {}
            if target.slices > 1:
                options["num_slices"] = target.slices
            found = topologies.get_topology_desc(platform="tpu", topology_name=f"{target.card.name}:{shape}", **options)
        else:
            hosts, cards = target.shape
            found = topologies.get_topology_desc(
                platform="cuda", topology=f"1x{hosts}x{cards}", target_config=_describe_cuda(target)
            )
    except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--target={target.name}: {platform}'s compiler knows no such devices ({reason}).") from None
    return list(found.devices)


def if_it_fits(compute: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
    """Computes or compiles; None where memory runs out, which the CPU says within other errors, without the code."""
    try:
        return compute(*arguments, **options)
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        return None


def out_of_memory(error: Exception) -> bool:
    said = str(error)
    return isinstance(error, jax.errors.JaxRuntimeError) and ("RESOURCE_EXHAUSTED" in said or "Out of memory" in said)


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _describe_cuda(target: TargetDevices) -> str:
    """Writes XLA's GpuTargetConfigProto as text."""
    card, facts = target.card, target.card.cuda
    assert facts is not None
    major, minor = facts.capability
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": facts.shared,
        "shared_memory_per_block_optin": facts.shared - 1024,
        "threads_per_core_limit": facts.threads,
        "core_count": facts.cores,
        "fpus_per_core": facts.lanes,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": int(card.bandwidth),
        "l2_cache_size": facts.l2,
        "clock_rate_ghz": facts.clock_ghz,
        "device_memory_size": int(card.memory),
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
    }
    lines = "\n".join(f"  {name}: {value}" for name, value in device.items())
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 patch: 0 }\n'
        f'device_description_str: "{card.name}"\n'
    )
