"""Opens HDF5 datasets through TensorStore, with CREMI's resolution and offset attributes."""

import io
import math
import threading
from typing import Any

import h5py
import numpy as np

from emsam_jax.errors import UserError, parsing
from emsam_jax.storage import Field, RemoteFile, is_remote
from emsam_jax.volumes.axes import Native, by_axis
from emsam_jax.volumes.chunk_files import Missing
from emsam_jax.volumes.formats.ome import array_metadata
from emsam_jax.volumes.formats.virtual import Region, default_chunk, virtual

MAGIC = b"\x89HDF\r\n\x1a\n"


class _LocalFile(io.FileIO):
    """A file that is closed when the last dataset is released."""

    def __del__(self) -> None:
        self.close()


def open_hdf5(url: str, dataset: str) -> Native:
    """Opens through a file object of its own, so that HDF5 neither locks it nor minds others that write to it."""
    with parsing(url, "an HDF5 file"):
        file = h5py.File(RemoteFile(url) if is_remote(url) else _LocalFile(url), "r")
        found = file.get(dataset) if dataset else None
        names = [] if isinstance(found, h5py.Dataset) else datasets(file)
    if not isinstance(found, h5py.Dataset):
        if dataset or len(names) != 1:
            what = f"no dataset {dataset!r} in it" if dataset else "no dataset named"
            raise UserError(f"{url}: expected file.h5/dataset; found {what}. It has: {', '.join(names) or 'none'}.")
        found = file[names[0]]
    return _native(found, f"{url}/{dataset or names[0]}")


def datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _native(dataset: Any, url: str) -> Native:
    lock = threading.Lock()  # a file behind h5py has one position; h5py's own lock is let go between calls
    with parsing(url, "an HDF5 dataset"):
        shape, dtype, chunk = dataset.shape, dataset.dtype, dataset.chunks
        attributes = {name: _plain(value) for name, value in dataset.attrs.items()}

    def read(region: Region) -> np.ndarray:
        with lock:
            return dataset[region]

    if shape is None or dtype.kind not in "biuf":
        raise UserError(f"{url}: expected an array of real numbers, found {'nothing' if shape is None else dtype}.")
    store = virtual(read, shape, dtype, chunk or default_chunk(shape, dtype.itemsize))
    fields = Field(attributes, url, "attributes")
    axes, size, offset, faults = array_metadata(fields, store.rank, "hdf5")
    if not size and (microns := fields["element_size_um"]):  # ilastik, PlantSeg
        size = {axis: 1e3 * value for axis, value in by_axis(microns.numbers(3), "zyx").items()}
    stored = None if dataset.is_virtual or dataset.external else lambda: _missing(dataset, url)
    return Native(store, axes, size, offset, faults=faults, stored=stored, attributes=fields)


def _missing(dataset: Any, url: str) -> Missing:
    """Counts chunks that were never written, and read as the fill value."""
    with parsing(url, "an HDF5 dataset"):
        if dataset.chunks is None:
            return Missing(int(dataset.id.get_storage_size() == 0), 1, 1, url)
        chunks = math.prod(-(-size // side) for size, side in zip(dataset.shape, dataset.chunks, strict=True))
        return Missing(chunks - dataset.id.get_num_chunks(), chunks, chunks, url)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
