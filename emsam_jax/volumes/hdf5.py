"""HDF5 datasets through TensorStore, with CREMI's resolution and offset attributes."""

import threading
from typing import Any

import h5py
import numpy as np

from emsam_jax.volumes.axes import Native, by_axis, unnamed_axes
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import RemoteFile, is_remote
from emsam_jax.volumes.ome import array_metadata
from emsam_jax.volumes.virtual import Region, default_chunk, virtual

MAGIC = b"\x89HDF\r\n\x1a\n"


def open_hdf5(url: str, dataset: str) -> Native:
    try:
        file = h5py.File(RemoteFile(url) if is_remote(url) else url, "r", locking=False)
    except OSError as error:
        raise VolumeError(f"{url}: found a damaged HDF5 file: {error}.") from None
    found = file.get(dataset) if dataset else None
    if not isinstance(found, h5py.Dataset):
        names = datasets(file)
        if dataset or len(names) != 1:
            what = f"no dataset {dataset!r} in it" if dataset else "no dataset named"
            raise VolumeError(f"{url}: expected file.h5/dataset; found {what}. It has: {', '.join(names) or 'none'}.")
        found = file[names[0]]
    return _native(found)


def datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _native(dataset: Any) -> Native:
    lock = threading.Lock()  # a remote file behind h5py has one position; h5py's own lock is let go between calls

    def read(region: Region) -> np.ndarray:
        with lock:
            return dataset[region]

    chunk = dataset.chunks or default_chunk(dataset.shape, dataset.dtype.itemsize)
    store = virtual(read, dataset.shape, dataset.dtype, chunk)
    attributes = {name: _plain(value) for name, value in dataset.attrs.items()}
    axes, size, offset = array_metadata(attributes, store.rank, "hdf5")
    if not size and "element_size_um" in attributes:  # ilastik, PlantSeg
        size = {axis: 1e3 * value for axis, value in by_axis(attributes["element_size_um"], "zyx").items()}
    return Native(store, axes or unnamed_axes("hdf5", store.rank), size, offset)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
