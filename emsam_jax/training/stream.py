"""Opens the declared volumes and streams batches to the devices."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from emsam_jax.blocks import content_of, hash_of
from emsam_jax.config import Config
from emsam_jax.data import Batch, PatchSource, Share, Target, batches, make_augment
from emsam_jax.errors import UserError
from emsam_jax.inference import Measured
from emsam_jax.training.losses import mean_share, prior_of, shares_of
from emsam_jax.training.sharding import everywhere, over_devices
from emsam_jax.volumes import Specimen, open_declared, part_of
from emsam_jax.volumes.verify import quick_findings

_COUNTED = 32  # samples that the share of positives is estimated from
_LOOKS = 6  # along each axis of a volume: a shard that is gone is seen


class Stream:
    """The training volumes, opened and measured, and the batches that are made of them."""

    def __init__(self, config: Config):
        if not config.data.train:
            raise UserError("config.data.train: expected at least one volume to train on, found none.")
        self.config, data = config, config.data
        self.specimens = tuple(open_declared(volume) for volume in data.train)
        self.target = make_target(config)
        if data.weights and len(data.weights) != len(data.train):
            raise UserError(
                f"config.data.weights: expected a weight for each of the {len(data.train)} training volumes, or none; "
                f"found {len(data.weights)}."
            )
        self._source = PatchSource(
            self.specimens,
            self.target,
            data.augmentation,
            config.seed,
            weights=data.weights or None,
            selection=data.selection,
        )

    def measure(self, mesh: Mesh) -> Measured:
        """Measures what the checkpoints keep of the volumes; a pure function of these and the config."""
        shares = shares_of(self._count(mesh))
        z, y, x = (float(size) for size in self.specimens[0].raw.voxel_size_zyx)
        return Measured(
            voxel_size_zyx=(z, y, x),
            ranges=tuple(specimen.intensity_range for specimen in self.specimens),
            positives=mean_share(shares),
            prior=prior_of(shares, self.config.loss),
            parts=tuple(part_of("training", specimen) for specimen in self.specimens),
        )

    def _count(self, mesh: Mesh) -> Int[np.ndarray, "samples 2 c"]:
        """Counts, in the first samples, how many affinities are known, and how many of these are 1."""

        def count(batch: Batch) -> Int[Array, "b 2 c"]:
            both = (batch.valid, batch.valid & (batch.affinities > 0))
            return jnp.stack([values.sum((1, 2, 3), dtype=jnp.int32) for values in both], 1)

        counted = jax.jit(count, out_shardings=everywhere(mesh))
        needed = -(-_COUNTED // self.config.optim.batch)
        return np.concatenate([np.asarray(counted(batch)) for batch in itertools.islice(self.batches(mesh, 0), needed)])

    def fingerprints(self) -> dict[str, str]:
        """Fingerprints each volume's raw and labels, by its name, to notice other data when a run resumes."""
        found = {}
        for place, specimen in enumerate(self.specimens):
            of_raw = content_of(specimen.read_raw, specimen.region, per_axis=_LOOKS)
            of_labels = content_of(lambda box, s=specimen: s.read_labels(box)[0], specimen.region, per_axis=_LOOKS)
            seen = [of_raw, of_labels]
            if self._source.labelled:  # a stroke is easily missed by a few looks
                index = self._source.labelled[place]
                seen.append(hash_of([index.boxes.tolist(), index.ends.tolist()]))
            found[f"config.data.train[{place}] ({specimen.name})"] = " ".join(seen)
        return found

    def describe(self) -> list[str]:
        """Describes each volume in a line, with warnings; raises errors."""
        lines = []
        for place, (specimen, chance) in enumerate(zip(self.specimens, self._source.chances, strict=True)):
            shape = " x ".join(str(side) for side in specimen.labelled_region.shape)
            size = " x ".join(f"{side:g}" for side in specimen.raw.voxel_size_zyx)
            lines.append(f"{specimen.name}: {shape} voxels of {size} nm (z, y, x), {chance:.0%} of the patches")
            if self._source.labelled:
                voxels = self._source.labelled[place].voxels
                share = voxels / specimen.labelled_region.voxels
                lines.append(f"  {voxels} voxels are labelled, {share:.2g} of all: patches are drawn around them")
            lines += [f"  warning: {text}" for text in _findings(specimen)]
        return lines

    def batches(self, mesh: Mesh, step: int) -> Iterator[Batch]:
        """Yields batches from the one after `step`, as in a run that was never stopped."""
        share = Share(self._source, self.config.optim.batch, jax.process_index(), jax.process_count())
        augment = make_augment(self.target, self.config.data.augmentation, self.config.seed)
        data = self.config.data
        return batches(share, augment, over_devices(mesh), step, threads=data.threads, prefetch=data.prefetch)


def make_target(config: Config) -> Target:
    data, model = config.data, config.model
    return Target(data.patch, model.offsets, data.widening, data.radius, model.isotropic)


def abstract_batch(config: Config) -> Batch:
    """Returns shapes and types of a batch."""
    channels = len(config.model.offsets)

    def rows(last: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((config.optim.batch, *config.data.patch, last), dtype)

    return Batch(rows(1, np.float32), rows(channels, np.float32), rows(channels, bool))


def _findings(specimen: Specimen) -> list[str]:
    found = quick_findings(specimen)
    for finding in found:
        if finding.severity == "error":
            raise UserError(f"{specimen.name}: {finding.text}")
    return [finding.text for finding in found]
