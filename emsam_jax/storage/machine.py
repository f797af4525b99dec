"""What of this machine the process may use: memory and cores, as its control groups allow, and room on its disks."""

import math
import os
from pathlib import Path
from typing import NamedTuple

from emsam_jax.errors import UserError
from emsam_jax.storage.location import is_remote, normalise

_CGROUPS, _PROCESS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


# By hierarchy of cgroups, the second version's first: files with the limit, what is in use, and of it what is cache.
_MEMORY = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class Room(NamedTuple):
    bytes: int
    files: int


def free_memory() -> int | None:
    """Returns the free bytes of memory; None: unknown."""
    free = [_field(Path("/proc/meminfo"), "MemAvailable:", 1024)]
    for hierarchy, of_limit, of_use, of_cache in _MEMORY:
        for group in _groups(hierarchy):
            limit, used = _number(group / of_limit), _number(group / of_use)
            if limit is not None and used is not None:
                free.append(limit - used + (_field(group / "memory.stat", of_cache, 1) or 0))
    known = [value for value in free if value is not None]
    return min(known) if known else None


def usable_cores() -> int:
    """By affinity and by the groups' quotas of time; at least 1."""
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for group in _groups():
        try:
            quota, period = map(int, (group / "cpu.max").read_text().split())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        counts.append(math.ceil(quota / period))
    return max(1, min(counts))


def check_memory(needed: int, what: str, advice: str) -> None:
    """Refuses work that needs more bytes than are free, before it begins."""
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{what} takes at least {needed / 2**30:.3g} GiB, of which {free / 2**30:.3g} are free; {advice}."
        )


def free_disk(url: str) -> Room | None:
    """Returns the free bytes where a file would lie; None where nobody can tell."""
    if is_remote(normalise(url)):
        return None
    path = Path(normalise(url))
    found = os.statvfs(next(parent for parent in (path, *path.parents) if parent.exists()))
    return Room(found.f_bavail * found.f_frsize, found.f_favail if found.f_files else 1 << 62)


def _groups(hierarchy: str = "") -> list[Path]:
    """Lists the process's cgroups: a container's own, and those that a queueing system has made."""
    try:
        lines = _PROCESS.read_text().splitlines()
    except OSError:
        lines = []
    paths = {name: path for line in lines for _, names, path in (line.split(":", 2),) for name in names.split(",")}
    root = _CGROUPS / hierarchy
    inner = root / paths.get(hierarchy, "/").lstrip("/")
    return [root, *(group for group in (inner, *inner.parents) if root in group.parents)]


def _field(file: Path, name: str, unit: int) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * unit for line in lines if line.startswith(name)), None)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None
