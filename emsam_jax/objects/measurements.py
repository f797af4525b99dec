"""Stage 4: the table of measurements, as CSV and Parquet, and for neuroglancer's list of segments."""

import csv
import dataclasses
import importlib.util
import io
import json
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry, Plan
from emsam_jax.errors import UserError
from emsam_jax.objects.objects_job import ObjectsJob
from emsam_jax.objects.shapes import read_measured
from emsam_jax.segmentation.blockwise import Table, are_intact, write_file
from emsam_jax.storage import open_folder, write_key

_CSV, _PARQUET, _SEGMENTS = "objects.csv", "objects.parquet", "segments/info"
_BOX = [f"{axis}_{end}_nm" for end in ("start", "stop") for axis in "zyx"]
_COLUMNS = {"volume": "volume_nm3", "surface": "surface_nm2", "skeleton": "skeleton_nm"}
_COLUMNS |= {"mean_thickness": "mean_thickness_nm", "largest_thickness": "largest_thickness_nm"}


@dataclasses.dataclass(frozen=True)
class Measurements:
    """Has one block, the whole volume."""

    job: ObjectsJob
    groups: Plan
    name: str = "measurements"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_shapes()

    def run(self, block: Block) -> str:
        columns = to_columns(read_measured(self.job.out, self.groups))
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        contents = {_CSV: text.getvalue(), _SEGMENTS: json.dumps(describe_segments(columns))}
        return ",".join(write_file(self.job.out, key, content.encode()) for key, content in contents.items())

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.out, (_CSV, _SEGMENTS), entry.checksum)


def to_columns(rows: Table) -> dict[str, np.ndarray]:
    """Returns the columns of the table by name, in its order."""
    box = np.concatenate([rows["start"], rows["stop"]], axis=1)
    names = ("volume", "surface", "skeleton", "mean_thickness", "largest_thickness")
    columns = {"id": rows["id"], "voxels": rows["voxels"]}
    columns |= {_COLUMNS[name]: rows[name] for name in names[:2]}
    columns |= dict(zip(_BOX, box.T, strict=True))
    return columns | {_COLUMNS[name]: rows[name] for name in names[2:]}


def describe_segments(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns neuroglancer's segment properties, by which its list of segments is sorted and filtered."""
    ids, *shown = [name for name in columns if name not in _BOX]
    properties = [
        {"id": name, "type": "number", "data_type": "float32", "values": columns[name].astype(np.float32).tolist()}
        for name in shown
    ]
    inline = {"ids": list(map(str, columns[ids].tolist())), "properties": properties}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def check_parquet() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise UserError("Parquet: expected pyarrow, found none; pip install 'emsam-jax[parquet]'.")


def write_parquet(out: str, groups: Plan) -> None:
    import pyarrow
    from pyarrow import parquet

    content = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(to_columns(read_measured(out, groups))), content)
    write_key(open_folder(out), _PARQUET, content.getvalue().to_pybytes())
