"""What was begun in this run and not ended: that has lost its worker.

    STAGE/begun/RUN/NAME    how often

Dask itself repeats the work of dead workers, so only what is written before the work begins can tell.
"""

import contextlib

import tensorstore as ts

from emsam_jax.volumes.location import normalise, open_folder, read_key, write_key


class Starts:
    def __init__(self, ledger_url: str, stage: str, run: str):
        self._folder = open_folder(normalise(ledger_url))
        self._begun, self._mine = f"{stage}/begun/", f"{stage}/begun/{run}/"

    def count(self, name: str) -> int:
        return int(read_key(self._folder, self._mine + name) or 0)

    def set(self, name: str, count: int) -> None:
        write_key(self._folder, self._mine + name, str(count).encode())

    def clear(self) -> None:
        """Of this run and all earlier ones. What cannot be deleted does no harm: names carry the run."""
        with contextlib.suppress(ValueError):
            self._folder.delete_range(ts.KvStore.KeyRange(self._begun, self._begun[:-1] + "0")).result()
