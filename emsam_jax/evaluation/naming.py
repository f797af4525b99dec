"""What volumes are called in reports, and the folders that their results lie in."""

import collections
import dataclasses
import re
from collections.abc import Sequence

from emsam_jax.volumes import DeclaredVolume


def name_apart(volumes: Sequence[DeclaredVolume]) -> list[DeclaredVolume]:
    """Each with a name, and a folder, of its own: that of its file, with the region where others have the same."""
    names = [declared.name or "/".join(declared.raw.rstrip("/").split("/")[-2:]) for declared in volumes]
    shared = collections.Counter(map(folder_of, names))
    found: dict[str, DeclaredVolume] = {}
    for name, declared in zip(names, volumes, strict=True):
        apart = f"{name} {declared.roi}" if shared[folder_of(name)] > 1 and declared.roi else name
        tried = (apart, *(f"{apart} ({i})" for i in range(2, len(volumes) + 1)))
        own = next(one for one in tried if folder_of(one) not in found)
        found[folder_of(own)] = dataclasses.replace(declared, name=own)
    return list(found.values())


def folder_of(name: str) -> str:
    """The name as a folder can have it."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "volume"
