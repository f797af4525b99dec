"""A segmentation against the truth: the verdict on each voxel as it is looked at, and both in the report's colours."""

import functools
import threading

import numpy as np
from jaxtyping import Integer, UInt8, UInt64

from emsam_jax.config import LabelRules
from emsam_jax.scores import Conventions, tabulate
from emsam_jax.storage import usable_cores
from emsam_jax.view.colours import Colouring, colours_of
from emsam_jax.view.exhibit import Pairing, pair_table
from emsam_jax.view.live.served import Levels
from emsam_jax.view.panels import choose_sections
from emsam_jax.volumes import Box, Specimen, Volume, Voxel

AT_ONCE = 1 << 27  # voxels whose ids are counted before the viewer opens: a second or two
_COLOURED = 10_000  # ids, the largest: the viewer keeps their colours in its state
Colours = dict[int, str]


class Comparison:
    """Everything is on the segmentation's voxels. Which segment is which neuron is counted over all of them, once."""

    has_pyramid = False  # a verdict is that of the finest voxels

    def __init__(self, segmentation: Levels, truth: Volume, mask: Volume | None, rules: LabelRules):
        self.finest = segmentation.finest
        self._segmentation, self._truth, self._mask, self._rules = segmentation, truth, mask, rules
        self._lock = threading.Lock()
        self.on = functools.cache(self._on)
        self.on((1, 1, 1))  # refuses volumes that do not meet

    @property
    def pairing(self) -> Pairing:
        with self._lock:
            return self._pairing

    @functools.cached_property
    def _pairing(self) -> Pairing:
        on, keep = self.on((1, 1, 1)), Conventions(ignore_truth=(0,))
        (table,) = tabulate(self.finest, _Truth(on), [keep], threads=usable_cores())
        return pair_table(table)

    def read(self, factor: Voxel, box: Box) -> UInt8[np.ndarray, "z y x"]:
        """Reads verdicts."""
        on = self.on(factor)
        inside = box.within(on.raw.box)
        verdict = np.zeros(box.shape, np.uint8)
        truth, labelled = on.read_labels(inside)
        z, y, x = box.start
        judged = self.pairing.judge(on.raw[inside.slices], truth, labelled)
        verdict[inside.shifted((-z, -y, -x)).slices] = judged
        return verdict

    def colour(
        self, segments: UInt64[np.ndarray, " n"], neurons: UInt64[np.ndarray, " m"], sections: int
    ) -> tuple[Colours, Colours]:
        """Colours of segments and of neurons as the report has them, which chooses them on so many sections."""
        on, pairing = self.on((1, 1, 1)), self.pairing
        depth, height, width = self.finest.shape
        shown = [Box((z, 0, 0), (z + 1, height, width)) for z in choose_sections(depth, sections)]
        truths = [on.read_labels(box)[0][0] for box in shown]
        colouring = Colouring([*truths, *(pairing.matched(self.finest[box.slices][0]) for box in shown)])
        return _hex(segments, colouring(pairing.matched(segments))), _hex(neurons, colouring(neurons))

    def _on(self, factor: Voxel) -> Specimen:
        """The truth on the segmentation's voxels; read_labels applies rules and mask."""
        grid = self._segmentation.at(factor)
        return Specimen(grid, self._truth, self._mask, roi=str(grid.box), rules=self._rules)


class _Truth:
    """The truth of a specimen, 0 where nobody knows, to be counted block by block."""

    def __init__(self, specimen: Specimen):
        self._specimen, self.shape, self.dtype = specimen, specimen.raw.shape, np.dtype(np.uint64)

    def __getitem__(self, box: tuple[slice, ...]) -> Integer[np.ndarray, "z y x"]:
        start, stop = zip(*((side.start, side.stop) for side in box), strict=True)
        return self._specimen.read_labels(Box(start, stop))[0]


def colour_by_hash(ids: UInt64[np.ndarray, " n"]) -> Colours:
    return _hex(ids, colours_of(ids))


def largest_ids(levels: Levels) -> UInt64[np.ndarray, " n"]:
    """The ids of the largest objects, counted on the finest level that is quickly read; none where there is no such."""
    volume = next((each for each in levels.coarser() if np.prod(each.shape) <= AT_ONCE), None)
    return np.zeros(0, np.uint64) if volume is None else _by_size(volume)


def _by_size(volume: Volume) -> UInt64[np.ndarray, " n"]:
    (table,) = tabulate(volume, volume, [Conventions()], threads=usable_cores())
    return table.segment[np.argsort(-table.count, kind="stable")[:_COLOURED]]


def _hex(ids: UInt64[np.ndarray, " n"], colours: UInt8[np.ndarray, "n 3"]) -> Colours:
    return {int(number): f"#{r:02x}{g:02x}{b:02x}" for number, (r, g, b) in zip(ids, colours.tolist(), strict=True)}
