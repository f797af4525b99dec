"""The same volume as other tools write it. Each writer returns the path to open, within the folder."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import tensorstore as ts
import tifffile
import zarr

with warnings.catch_warnings():  # what their own dependencies say when imported
    warnings.simplefilter("ignore")
    import ome_zarr.format
    import ome_zarr.writer
    from cloudvolume import CloudVolume

SIZE, OFFSET = [40.0, 4.0, 8.0], [400.0, 40.0, 16.0]  # nm, z, y, x

Writer = Callable[[Path, np.ndarray], str]


def zarr2(folder: Path, values: np.ndarray) -> str:
    """As gunpowder and funlib lay it out."""
    group = zarr.open_group(folder / "a.zarr", mode="w", zarr_format=2)
    array = group.create_array("volumes/raw", shape=values.shape, chunks=(8, 32, 32), dtype=values.dtype)
    array[:] = values
    array.attrs.update({"resolution": SIZE, "offset": OFFSET})
    return "a.zarr/volumes/raw"


def zarr3(folder: Path, values: np.ndarray) -> str:
    return _zarr3(folder, values, None)


def zarr3_sharded(folder: Path, values: np.ndarray) -> str:
    return _zarr3(folder, values, (16, 64, 64))


def zarr3_x_first(folder: Path, values: np.ndarray) -> str:
    """Named axes decide, not their order."""
    array = zarr.create_array(
        folder / "x.zarr",
        shape=values.shape[::-1],
        chunks=(32, 32, 8),
        dtype=values.dtype,
        dimension_names=["x", "y", "z"],
    )
    array[:] = values.transpose()
    array.attrs.update({"voxel_size": SIZE[::-1], "offset": OFFSET[::-1]})
    return "x.zarr"


def _zarr3(folder: Path, values: np.ndarray, shards: tuple[int, ...] | None) -> str:
    array = zarr.create_array(
        folder / "b.zarr", shape=values.shape, chunks=(8, 32, 32), shards=shards, dtype=values.dtype
    )
    array[:] = values
    array.attrs.update({"voxel_size": SIZE, "offset": [4.0, 0.4, 0.16], "units": ["nm"] * 3} | {"offset": OFFSET})
    return "b.zarr"


def ome_zarr_04(folder: Path, values: np.ndarray) -> str:
    return _ome(folder, values, ome_zarr.format.FormatV04(), 2)


def ome_zarr_05(folder: Path, values: np.ndarray) -> str:
    return _ome(folder, values, ome_zarr.format.FormatV05(), 3)


def _ome(folder: Path, values: np.ndarray, version: ome_zarr.format.Format, zarr_format: Literal[2, 3]) -> str:
    """Two levels in micrometres, the second placed by the centre of its first voxel; channel and time in front."""
    group = zarr.open_group(folder / "o.zarr", mode="w", zarr_format=zarr_format)
    levels = [values[None, None], values[None, None, :, ::2, ::2]]
    scales = [[1.0, 1.0, 0.04, 0.004, 0.008], [1.0, 1.0, 0.04, 0.008, 0.016]]
    shifts = [[0.0, 0.0, 0.4, 0.04, 0.016], [0.0, 0.0, 0.4, 0.042, 0.020]]
    steps = [
        [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        for scale, shift in zip(scales, shifts, strict=True)
    ]
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ome_zarr.writer.write_multiscale(levels, group, fmt=version, axes=axes, coordinate_transformations=steps)
    return "o.zarr"


def n5(folder: Path, values: np.ndarray) -> str:
    _write_n5(folder / "c.n5/raw", values, {"pixelResolution": {"dimensions": [8, 4, 40], "unit": "nm"}})
    _add_attributes(folder / "c.n5/raw", {"offset": OFFSET[::-1]})
    return "c.n5/raw"


def n5_pyramid(folder: Path, values: np.ndarray) -> str:
    """As COSEM lays it out."""
    for level, step in enumerate((1, 2)):
        transform = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "translate": OFFSET}
        transform["scale"] = [SIZE[0], SIZE[1] * step, SIZE[2] * step]
        _write_n5(folder / f"d.n5/em/s{level}", values[:, ::step, ::step], {})
        _add_attributes(folder / f"d.n5/em/s{level}", {"transform": transform})
    (folder / "d.n5/em/attributes.json").write_text("{}")
    return "d.n5/em"


def _write_n5(path: Path, values: np.ndarray, attributes: dict) -> None:
    metadata = {"dimensions": values.shape[::-1], "blockSize": [32, 32, 8], "dataType": values.dtype.name}
    spec = {"driver": "n5", "kvstore": f"file://{path}/", "metadata": {**metadata, "compression": {"type": "gzip"}}}
    ts.open(spec, create=True).result()[...] = values.transpose()
    _add_attributes(path, attributes)


def _add_attributes(path: Path, attributes: dict) -> None:
    file = path / "attributes.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | attributes))


def cremi(folder: Path, values: np.ndarray) -> str:
    with h5py.File(folder / "cremi.hdf", "w") as file:
        for name in ("volumes/raw", "volumes/other"):
            dataset = file.create_dataset(name, data=values, chunks=(5, 16, 32), compression="gzip")
            dataset.attrs["resolution"] = SIZE
            dataset.attrs["offset"] = OFFSET
    return "cremi.hdf/volumes/raw"


def tiff_pages(folder: Path, values: np.ndarray) -> str:
    tifffile.imwrite(folder / "p.tif", values, compression="zlib", rowsperstrip=16)
    return "p.tif"


def tiff_tiles(folder: Path, values: np.ndarray) -> str:
    options = {"byteorder": ">", "bigtiff": True, "photometric": "minisblack", "predictor": True}
    tifffile.imwrite(folder / "t.tif", values.astype(np.uint16), tile=(32, 48), compression="zlib", **options)
    return "t.tif"


def imagej(folder: Path, values: np.ndarray) -> str:
    metadata = {"spacing": 0.04, "unit": "um", "axes": "ZYX"}
    tifffile.imwrite(folder / "i.tif", values, imagej=True, resolution=(125.0, 250.0), metadata=metadata)
    return "i.tif"


def ome_tiff(folder: Path, values: np.ndarray) -> str:
    sizes = {"PhysicalSizeX": 8.0, "PhysicalSizeY": 4.0, "PhysicalSizeZ": 40.0}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    tifffile.imwrite(folder / "o.ome.tif", values, metadata={"axes": "ZYX", **sizes, **units}, compression="zlib")
    return "o.ome.tif"


def tiff_sections(folder: Path, values: np.ndarray) -> str:
    """Numbers without leading zeros: 10 comes after 9."""
    (folder / "sections").mkdir()
    for z, section in enumerate(values):
        compression = "zlib" if z % 2 else None
        tifffile.imwrite(folder / f"sections/em_{z}.tif", section, compression=compression)
    return "sections"


def npy_c(folder: Path, values: np.ndarray) -> str:
    np.save(folder / "c.npy", values)
    return "c.npy"


def npy_fortran(folder: Path, values: np.ndarray) -> str:
    np.save(folder / "f.npy", np.asfortranarray(values.astype(values.dtype.newbyteorder(">"))))
    return "f.npy"


def precomputed_raw(folder: Path, values: np.ndarray) -> str:
    return precomputed(folder, values, "image", "raw")


def precomputed_compressed(folder: Path, values: np.ndarray) -> str:
    return precomputed(folder, values, "segmentation", "compressed_segmentation")


def precomputed_gzip(folder: Path, values: np.ndarray) -> str:
    """As cloud-volume does unasked."""
    return precomputed(folder, values, "image", "raw", compress=True)


def precomputed(folder: Path, values: np.ndarray, kind: str, encoding: str, compress: str | bool = False) -> str:
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type=kind,
        data_type=values.dtype.name,
        encoding=encoding,
        resolution=[8, 4, 40],
        voxel_offset=[2, 10, 10],
        chunk_size=[32, 32, 8],
        volume_size=values.shape[::-1],
    )
    volume: Any = CloudVolume(f"file://{folder}/pre", info=info, compress=compress, progress=False)
    volume.commit_info()
    volume[:, :, :] = values.transpose()[..., None]
    return "pre"


def spec(folder: Path, values: np.ndarray) -> str:
    """TensorStore's JSON in a file, here of a part of an N5 volume; the unit comes from its metadata."""
    _write_n5(folder / "s.n5", values, {"resolution": SIZE[::-1], "units": ["nm"] * 3})
    content = {"driver": "n5", "kvstore": f"file://{folder}/s.n5/"}
    (folder / "spec.json").write_text(json.dumps(content))
    return "spec.json"


# Each with whether it carries a voxel size, and an offset.
WRITERS: dict[Writer, tuple[bool, bool]] = {
    zarr2: (True, True),
    zarr3: (True, True),
    zarr3_sharded: (True, True),
    zarr3_x_first: (True, True),
    ome_zarr_04: (True, True),
    ome_zarr_05: (True, True),
    n5: (True, True),
    n5_pyramid: (True, True),
    cremi: (True, True),
    tiff_pages: (False, False),
    tiff_tiles: (False, False),
    imagej: (True, False),
    ome_tiff: (True, False),
    tiff_sections: (False, False),
    npy_c: (False, False),
    npy_fortran: (False, False),
    precomputed_raw: (True, True),
    precomputed_gzip: (True, True),
    precomputed_compressed: (True, True),
    spec: (True, False),
}
