"""A volume: an array of voxels z, y, x that is read where it is indexed, and its place in the world."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Float32, Int64, Shaped
from numpy.typing import DTypeLike

from emsam_jax.errors import UserError, first_line
from emsam_jax.volumes.axes import Native, Sizes, sizes
from emsam_jax.volumes.box import Box, Voxel, box_of
from emsam_jax.volumes.chunk_files import ChunkFiles, Ranges

AFFINITY_OFFSETS = "affinity_offsets"  # in a file's attributes: [z, y, x] in voxels, one a channel


class Volume:
    """`volume[z0:z1, y0:y1, x0:x1]` reads (and, if writable, writes) a box as numpy.

    Indices count voxels from 0, whatever the offset. A channel axis, where one was asked for, comes first.
    """

    def __init__(
        self,
        store: ts.TensorStore,
        url: str,
        *,
        voxel_size_zyx: Sequence[int | float] | None = None,
        offset_zyx: Sequence[int | float] = (0.0, 0.0, 0.0),
        levels: tuple[Sizes, ...] = (),
        offsets: tuple[Voxel, ...] = (),
        native: Native | None = None,
    ):
        self.store = store  # lazily read; starts at 0
        self.url = url
        self.voxel_size_known = voxel_size_zyx is not None  # a file without it is taken as 1 nm
        self.voxel_size_zyx = sizes(voxel_size_zyx or (1.0, 1.0, 1.0))  # nm
        self.offset_zyx = sizes(offset_zyx)  # nm, the near corner of the first voxel
        self.levels = levels or (self.voxel_size_zyx,)  # voxel size of each level of the pyramid
        self.offsets = offsets  # voxels, from a voxel to its partner, of each channel of affinities; empty: unknown
        self.native = native  # as its file has it, where it was opened from one

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.store.shape)

    @property
    def dtype(self) -> np.dtype:
        return self.store.dtype.numpy_dtype

    @property
    def box(self) -> Box:
        return box_of(self.shape[-3:])

    def __repr__(self) -> str:
        return f"Volume({self.url!r}, {self.shape}, {self.dtype}, {self.voxel_size_zyx} nm, at {self.offset_zyx} nm)"

    def __getitem__(self, index: Any) -> Shaped[np.ndarray, "..."]:
        index = self._check(index)
        try:
            return np.asarray(self.store[index].read().result())
        except ValueError as error:
            where = ",".join(f"{i.start}:{i.stop}" if isinstance(i, slice) else str(i) for i in index)
            raise UserError(f"{self.url}: voxels {where} cannot be read: {first_line(error)}") from None

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Shaped[np.ndarray, "..."]:
        """Reads all voxels, for np.asarray."""
        if copy is False:
            raise UserError(f"{self.url}: its voxels lie in a file and have to be copied; leave out copy=False.")
        return self[...].astype(self.dtype if dtype is None else dtype, copy=False)

    def __setitem__(self, index: Any, values: Any) -> None:
        index = self._check(index)
        try:
            self.store[index].write(values).result()
        except ValueError as error:
            raise UserError(f"{self.url} cannot be written: {first_line(error)}") from None

    def read(self, box: Box, outside: int | float = 0) -> Shaped[np.ndarray, "*c z y x"]:
        """Reads the box, with `outside` for voxels beyond the volume; all channels, where there are some."""
        inside = box.within(self.box)
        if inside == box:
            return self[(..., *box.slices)]
        values = np.full((*self.shape[:-3], *box.shape), outside, self.dtype)
        if inside.voxels:
            z, y, x = box.start
            values[(..., *inside.shifted((-z, -y, -x)).slices)] = self[(..., *inside.slices)]
        return values

    def read_voxels(self, places: Int64[np.ndarray, "n 3"]) -> Shaped[np.ndarray, " n"]:
        """Reads single voxels of a volume without channels; each chunk that holds some once."""
        try:
            return np.asarray(self.store.vindex[tuple(places.T)].read().result())
        except ValueError as error:
            raise UserError(f"{self.url}: {len(places)} voxels cannot be read: {first_line(error)}") from None

    def chunks_in(self, box: Box) -> tuple[ChunkFiles, Ranges] | None:
        """Returns the files of the volume's chunks and the range, along each of their axes, of those that meet a box.

        None where the volume is not one array in a folder of chunks.
        """
        files = self._files
        if self.native is None or files is None:
            return None
        sides = dict(zip("zyx", zip(*box, strict=True), strict=True)) | {"t": (0, 1)}
        ranges = []
        for axis, size, side in zip(self.native.axes, files.shape, files.chunk, strict=True):
            start, stop = sides.get(axis, (0, size))
            ranges.append(range(start // side, -(-stop // side)))
        return files, ranges

    def is_written(self, box: Box) -> bool:
        """Returns whether any chunk that meets the box exists; true where that is not known."""
        found = self.chunks_in(box.within(self.box))
        return found is None or found[0].any_stored(found[1])

    @functools.cached_property
    def _files(self) -> ChunkFiles | None:
        return None if self.native is None else self.native.files or ChunkFiles.of(self.native.store)

    def _check(self, index: Any) -> tuple[Any, ...]:
        """Refuses indices beyond the volume: numpy would crop silently, and count negative ones from the end."""
        index = index if isinstance(index, tuple) else (index,)
        if Ellipsis in index:
            at = index.index(Ellipsis)
            index = (*index[:at], *[slice(None)] * (len(self.shape) + 1 - len(index)), *index[at + 1 :])
        index = (*index, *[slice(None)] * (len(self.shape) - len(index)))
        if len(index) > len(self.shape):
            raise UserError(f"{self.url}: expected {len(self.shape)} indices or fewer, found {len(index)}.")
        checked = []
        for i, size in zip(index, self.shape, strict=True):
            if isinstance(i, slice):
                start, stop = 0 if i.start is None else int(i.start), size if i.stop is None else int(i.stop)
                fits = 0 <= start <= stop <= size
                checked.append(slice(start, stop, i.step))
            else:
                fits = 0 <= int(i) < size
                checked.append(int(i))
            if not fits:
                raise UserError(f"{self.url}: expected indices within its shape {self.shape}, found {i}.")
        return tuple(checked)


def as_unit(affinities: Shaped[np.ndarray, "c z y x"]) -> Float32[np.ndarray, "c z y x"]:
    """Converts stored affinities to float32; uint8 as shares of 255."""
    values = affinities.astype(np.float32)
    return values / 255 if affinities.dtype == np.uint8 else values
