"""Fingerprints settings and inputs, to notice that they have changed; inputs without reading all of their voxels."""

import datetime
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from emsam_jax.storage import is_remote, places_of
from emsam_jax.volumes import Box

_SAMPLE = 16  # side of the boxes that are looked at, voxels


def hash_of(settings: Any) -> str:
    """Hashes JSON values; the order of fields does not matter."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def content_of(read: Callable[[Box], Shaped[np.ndarray, "*c z y x"]], region: Box, per_axis: int = 2) -> str:
    """Hashes small boxes of a volume, one in the middle of the region and several along each axis."""
    found = hashlib.blake2b(digest_size=8)
    shape = tuple(min(_SAMPLE, side) for side in region.shape)
    places = [(place + 0.5) / per_axis for place in range(per_axis)]
    for part in ((0.5, 0.5, 0.5), *itertools.product(places, repeat=3)):
        start = [
            first + int(p * (side - own))
            for first, p, side, own in zip(region.start, part, region.shape, shape, strict=True)
        ]
        box = Box((0, 0, 0), (shape[0], shape[1], shape[2])).shifted((start[0], start[1], start[2]))
        found.update(np.ascontiguousarray(read(box)).data)
    return found.hexdigest()


def files_of(url: str) -> str:
    """Returns the number of local files of a volume, their bytes, and the time of the newest."""
    found = []
    for place in places_of(url):
        if not is_remote(place):
            file = next(path for path in (Path(place), *Path(place).parents) if path.exists())  # a dataset's is above
            inside = file.rglob("*") if file.is_dir() else [file]
            found += [each.stat() for each in inside if each.is_file()]
    if not found:
        return ""
    newest = max(each.st_mtime for each in found)
    at = datetime.datetime.fromtimestamp(newest, datetime.UTC).isoformat(" ")
    return f"{len(found)}, of {sum(each.st_size for each in found)} bytes, the newest of {at}"
