"""Loads batches without end: samples read by threads, augmented on the device, sharded over all processes."""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import grain
import jax
import numpy as np
from jax.sharding import NamedSharding

from emsam_jax.data.augment import Batch
from emsam_jax.data.patches import PatchSource, Samples


class Share:
    """The rows of each batch that this process reads; global step s has the samples s * batch to (s + 1) * batch."""

    def __init__(self, source: PatchSource, batch: int, process: int, processes: int):
        if batch % processes:
            raise ValueError(
                f"The batch must be a multiple of the number of processes, {processes}; found {batch}. Choose another."
            )
        self.source, self.batch = source, batch
        self.rows = batch // processes
        self.first = process * self.rows

    def __len__(self) -> int:
        return len(self.source) // self.batch * self.rows

    def __getitem__(self, position: int) -> Samples:
        step, row = divmod(position, self.rows)
        return self.source[step * self.batch + self.first + row]


def read_samples(share: Share, step: int = 0, *, threads: int = 8, prefetch: int = 2) -> Iterator[Samples]:
    """Yields the rows of this process from `step`, as numpy arrays, and prefetches batches."""
    dataset = grain.MapDataset.source(cast("Any", share))[step * share.rows :]
    early = max(prefetch, 1) * share.rows
    options = grain.ReadOptions(num_threads=min(threads, early), prefetch_buffer_size=early)
    return iter(dataset.to_iter_dataset(options).batch(share.rows, batch_fn=_stack))


def batches(
    share: Share,
    augment: Callable[[Samples], Batch],
    sharding: NamedSharding | None = None,
    step: int = 0,
    *,
    threads: int = 8,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Yields global batches from `step`, exactly as they follow in a run that was never stopped.

    `sharding` lays the batch axis over the devices of all processes. `prefetch` batches are read, and as many queued on
    the device, before they are asked for. An exception ends the iteration for good.
    """
    under_way: collections.deque[Batch] = collections.deque()
    for samples in read_samples(share, step, threads=threads, prefetch=prefetch):
        placed = samples
        if sharding is not None:
            placed = jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), samples)
        under_way.append(augment(placed))
        if len(under_way) > prefetch:
            yield under_way.popleft()
    yield from under_way


def _stack(samples: Sequence[Samples]) -> Samples:
    return Samples(*(np.stack(parts) for parts in zip(*samples, strict=True)))
