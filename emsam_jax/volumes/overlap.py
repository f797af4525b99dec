"""Finds whether parts of a data split hold the same voxels, however the user names the file that they lie in."""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import tensorstore as ts

from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.storage import inode_of, is_remote, metadata_files, normalise, split_last
from emsam_jax.volumes.box import Box
from emsam_jax.volumes.formats import datasets, multiscale, read_metadata
from emsam_jax.volumes.specimen import Specimen, open_declared
from emsam_jax.volumes.volume import Volume

Role = Literal["training", "validation", "test"]
Corner = tuple[float, float, float]
Identity = tuple[int, int, str] | str  # of an array: device, inode and dataset, or where it lies
_EXACT = 1e-6  # of an extent: two boxes that share less only touch


@dataclasses.dataclass(frozen=True)
class Used:
    """What a part uses of an array, as shares of its extent along z, y, x: the same for all levels of a pyramid."""

    place: str  # of the array: one for all names of it
    start: Corner
    stop: Corner
    voxel: Corner  # one voxel

    def meets(self, other: "Used") -> bool:
        if identity_of(self.place) != identity_of(other.place):
            return False
        for axis in range(3):
            shared = min(self.stop[axis], other.stop[axis]) - max(self.start[axis], other.start[axis])
            finer, coarser = sorted((self.voxel[axis], other.voxel[axis]))
            # A pyramid rounds the sides of its levels.
            if shared <= (_EXACT if coarser - finer < _EXACT * coarser else coarser / 2):
                return False
        return True


@dataclasses.dataclass(frozen=True)
class Part:
    """A volume of the split: which of its raw and of its labels is used."""

    role: Role
    name: str
    region: str  # z0:z1,y0:y1,x0:x1 in voxels of the raw
    raw: Used
    labels: Used | None = None

    def describe(self) -> dict[str, Any]:
        """Describes the part for scores.json."""
        labels = {"labels": self.labels.place} if self.labels else {}
        return {"role": self.role, "name": self.name, "raw": self.raw.place, **labels, "region": self.region}


def part_of(role: Role, specimen: Specimen) -> Part:
    """Returns the part that a role uses: training the raw of its whole region of interest, others what is labelled."""
    labelled = specimen.labelled_region
    seen = specimen.region if role == "training" else labelled
    labels = None if specimen.labels is None else _used(specimen.labels, specimen.raw, labelled)
    return Part(role, specimen.name, str(seen), _used(specimen.raw, specimen.raw, seen), labels)


def part_from(facts: Mapping[str, Any]) -> Part:
    """Restores a part from JSON of `dataclasses.asdict`."""

    def used(found: Mapping[str, Any]) -> Used:
        return Used(found["place"], *(_corner(found[name]) for name in ("start", "stop", "voxel")))

    labels = None if facts["labels"] is None else used(facts["labels"])
    return Part(facts["role"], facts["name"], facts["region"], used(facts["raw"]), labels)


def _corner(sides: Sequence[Any]) -> Corner:
    z, y, x = map(float, sides)
    return z, y, x


def open_shared(split: Mapping[Role, Sequence[DeclaredVolume]]) -> list[Part]:
    """Opens the volumes whose files serve in two roles; the others need not exist yet."""

    def places(declared: DeclaredVolume) -> set[Identity]:
        return {identity_of(place_of(url)) for url in (declared.raw, declared.labels) if url}

    by_role = {role: set().union(*map(places, volumes)) for role, volumes in split.items()}
    return [
        part_of(role, open_declared(declared))
        for role, volumes in split.items()
        for declared in volumes
        if any(places(declared) & by_role[other] for other in split if other != role)
    ]


def refuse_overlap(parts: Sequence[Part], *, allowed: bool = False) -> list[str]:
    """Refuses a test volume that was trained or chosen on; where that is allowed, returns what is shared."""
    found = []
    for one, other in itertools.combinations(parts, 2):
        both = (("the same voxels", one.raw, other.raw), ("the same labels", one.labels, other.labels))
        shared = [(what, a.place) for what, a, b in both if a and b and a.meets(b)]
        if one.role != other.role and shared:
            (what, place), *_ = shared
            found.append(
                f"The {one.role} volume {one.name} ({one.region}) and the {other.role} volume {other.name} "
                f"({other.region}) hold {what} of {place}"
            )
    if found and not allowed:
        raise UserError(f"{found[0]}: choose parts that don't overlap, or let it through with --allow_overlap.")
    return found


def place_of(url: str) -> str:
    """Returns where an array lies: with links resolved and its dataset's name; of a pyramid's level, the pyramid."""
    if url.lstrip().startswith("{"):
        url = _url_of(json.loads(url)) or url
        if url.lstrip().startswith("{"):
            return url
    url = normalise(url)
    if is_remote(url):
        scheme, _, path = url.partition("://")
        return _pyramid_of(f"{scheme}://{re.sub('/+', '/', path)}")
    real = os.path.realpath(url)
    if Path(real).is_file() and h5py.is_hdf5(real):
        with h5py.File(real, "r", locking=False) as file:
            names = datasets(file)
        return f"{real}/{names[0]}" if len(names) == 1 else real
    return _pyramid_of(real)


def identity_of(place: str) -> Identity:
    """The same for hard links to the file that holds the array, or to the metadata or first file of its folder."""
    path = Path(place)
    if is_remote(place) or not path.is_absolute():  # TensorStore's JSON
        return place
    held = next(each for each in (path, *path.parents) if each.exists())  # above a dataset is its file
    files = [held] if held.is_file() else metadata_files(held) if held == path else []
    if held == path and not files:
        files = sorted(file for file in held.iterdir() if file.is_file())
    inode = inode_of(files[0]) if files else None
    return (*inode, str(path.relative_to(held))) if inode else place


def _pyramid_of(url: str) -> str:
    parent, name = split_last(url)
    own = read_metadata(url)
    if re.fullmatch(r"s\d+", name) and "attributes.json" in own and own["attributes.json"]["dimensions"]:  # N5
        return parent
    for metadata in read_metadata(parent).values() if parent else ():
        image = multiscale(metadata["attributes"] or metadata)
        if image is not None and name in [level["path"].value for level in image["datasets"]]:
            return parent
    return url


def _url_of(spec: Mapping[str, Any]) -> str:
    """Returns the URL in TensorStore's JSON; empty where it names no store."""
    if "base" in spec:
        return _url_of(spec["base"])
    store = spec.get("kvstore", "")
    if isinstance(store, Mapping):
        return store["path"] if store.get("driver") == "file" else ts.KvStore.Spec(dict(store)).url
    return store


def _used(volume: Volume, raw: Volume, box: Box) -> Used:
    """`box` is in voxels of the raw."""
    bounds: list[list[float]] = []
    for edge in (box.start, box.stop):
        places = []
        for axis, at in enumerate(edge):
            world = raw.offset_zyx[axis] + at * raw.voxel_size_zyx[axis]
            place = (world - volume.offset_zyx[axis]) / volume.voxel_size_zyx[axis] / volume.shape[axis]
            places.append(min(max(place, 0.0), 1.0))
        bounds.append(places)
    (z0, y0, x0), (z1, y1, x1) = bounds
    z, y, x = volume.shape
    return Used(place_of(volume.url), (z0, y0, x0), (z1, y1, x1), (1 / z, 1 / y, 1 / x))
