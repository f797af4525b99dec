"""Writes metrics.jsonl: a JSON object a line, each with its `step`. Resuming from a step drops later rows."""

import json
import math
from pathlib import Path
from typing import Any

from emsam_jax.storage import write_whole

Row = dict[str, Any]


class MetricsFile:
    def __init__(self, path: Path, step: int):
        self.path = path
        rows = [row for row in read_rows(path) if row["step"] <= step]
        self._validated = {row["step"] for row in rows if is_validation(row)}
        write_whole(path, "".join(_line(row) for row in rows))
        self._file = path.open("a", buffering=1)

    def write(self, row: Row) -> None:
        """Writes a row; skips a validation's that was written before its run was killed."""
        if is_validation(row):
            if row["step"] in self._validated:
                return
            self._validated.add(row["step"])
        self._file.write(_line(row))

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[Row]:
    """Reads whole rows; the last one may have been cut short."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def is_validation(row: Row) -> bool:
    return any(name.startswith("validation_") for name in row)


def _line(row: Row) -> str:
    """Formats a row as JSON, which has neither NaN nor infinity."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    return json.dumps(plain) + "\n"
