"""Reads metadata and first bytes of files that others wrote, within bounds of size and time."""

import os
import stat
from pathlib import Path

import tensorstore as ts

from emsam_jax.errors import UserError
from emsam_jax.storage.location import read_key

LIMIT = 64 << 20  # bytes of a metadata file
PATIENCE = 30.0  # seconds without an answer
IN_ALL = 120.0  # seconds for one file


def read_bounded(folder: ts.KvStore, key: str, first_bytes: int | None = None) -> bytes | None:
    """Reads the content, or its first bytes; None where there is no such file."""
    scheme = folder.url.partition(":")[0]
    if scheme == "file":
        return _read_local(folder.path + key, first_bytes)
    if scheme in ("http", "https"):
        from emsam_jax.storage.web import read_http  # whose library takes as long to load as TensorStore

        found = read_http(folder, key, None if first_bytes is None else (0, first_bytes))
        return None if found is None else found.content
    return read_key(folder, key, first_bytes, timeout=IN_ALL)


def _read_local(path: str, first_bytes: int | None) -> bytes | None:
    """Reads without opening what would wait for a writer, or never end."""
    try:
        found = Path(path).stat()
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path}: expected a file or folder, found a pipe, socket or device.")
        if first_bytes is None and found.st_size > LIMIT:
            raise too_large(path)
        with Path(path).open("rb") as file:
            return file.read(LIMIT if first_bytes is None else first_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None


def too_large(place: str) -> UserError:
    return UserError(f"{place}: expected metadata of at most {LIMIT >> 20} MiB, found more.")
