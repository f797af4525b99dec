"""How objects share the segmented voxels: where false merges run away, one object holds most of them."""

import json
from typing import NamedTuple

from emsam_jax.segmentation.blockwise.tables import Table, write_file
from emsam_jax.volumes import VolumeError
from emsam_jax.volumes.location import open_folder, read_key

SUMMARY = "summary.json"
_MANY = 100  # objects from which on a large share is suspicious
_LARGE = 0.3


class Summary(NamedTuple):
    objects: int
    voxels: int  # of all objects
    largest: int  # id
    largest_share: float  # of the voxels

    @property
    def is_suspicious(self) -> bool:
        return self.objects >= _MANY and self.largest_share > _LARGE

    def __str__(self) -> str:
        if not self.objects:
            return "no objects"
        share = f"{self.largest_share:.1%} of the voxels"
        return f"{self.objects} objects, of which the largest, {self.largest}, holds {share}"


def summarise(objects: Table) -> Summary:
    sizes = objects["size"]
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
    return Summary(**json.loads(content))
