"""How objects share the segmented voxels: where false merges run away, one object holds most of them."""

import json
from typing import NamedTuple

from emsam_jax.segmentation.blockwise.tables import Table, write_file
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.location import open_folder, read_key

SUMMARY = "summary.json"
_LARGE = 0.3


class Summary(NamedTuple):
    objects: int
    voxels: int  # of all objects
    largest: int  # id
    largest_share: float  # of the voxels

    @property
    def is_suspicious(self) -> bool:
        return self.largest_share > _LARGE

    def __str__(self) -> str:
        if not self.objects:
            return "no objects"
        share = f"{self.largest_share:.1%} of the voxels"
        return f"{self.objects} objects, of which the largest, {self.largest}, holds {share}"


def summarise(objects: Table) -> Summary:
    sizes = objects["voxels"]
    if not len(sizes):
        return Summary(0, 0, 0, 0.0)
    place, total = int(sizes.argmax()), int(sizes.sum())
    return Summary(len(sizes), total, int(objects["id"][place]), float(sizes[place] / total))


def write_summary(url: str, objects: Table) -> str:
    return write_file(url, SUMMARY, json.dumps(summarise(objects)._asdict()).encode())


def read_summary(url: str) -> Summary:
    content = read_key(open_folder(url), SUMMARY)
    if content is None:
        raise VolumeError(f"{url}: expected {SUMMARY} beside labels made block by block, found none; make them anew.")
    try:
        found = json.loads(content)
        kinds = {"objects": int, "voxels": int, "largest": int, "largest_share": (int, float)}
        if not (found.keys() == kinds.keys() and all(isinstance(found[name], kind) for name, kind in kinds.items())):
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise VolumeError(
            f"{url}/{SUMMARY}: expected {', '.join(Summary._fields)}, found {content!r:.60}; make the labels anew."
        ) from None
    return Summary(**found)
