"""Which files lie below a place, and the deleting of those among them that match a pattern; all others stay."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage.location import is_remote, open_folder

TORN = re.compile(r"(_[0-9a-f]+)?\.__lock$")  # what TensorStore adds to the name of a file until it is whole
_IN_FLIGHT = 256


def list_keys(url: str) -> Iterator[str]:
    """Of all files below, those among them that TensorStore does not list because their writer was killed."""
    if is_remote(url):
        try:
            keys = open_folder(url).list().result()
        except ValueError as error:
            raise UserError(f"{url} cannot be listed: {first_line(error)}") from None
        yield from (key.decode(errors="surrogateescape") for key in keys)
        return
    for at, folders, files in os.walk(url, onerror=_refuse):
        folder = Path(at)
        links = [name for name in folders if (folder / name).is_symlink()]  # are not followed
        yield from ((folder / name).relative_to(url).as_posix() for name in (*files, *links))


def remove(url: str, files: str, *, keep: Sequence[str] = (), torn: bool = False) -> None:
    """The files whose keys match the pattern, and folders that this empties; all else stays.

    With `torn`, only those of them that a killed process did not finish.
    """
    own = re.compile(files)
    keys = [key for key in list_keys(url) if own.fullmatch(TORN.sub("", key)) and (not torn or TORN.search(key))]
    _delete(url, [key for key in keys if TORN.sub("", key) not in keep])


def _delete(url: str, keys: list[str]) -> None:
    """First what says that the rest is there."""
    keys = sorted(keys, key=lambda key: not key.endswith((".json", "info")))
    if is_remote(url):
        folder = open_folder(url)
        for first in range(0, len(keys), _IN_FLIGHT):
            try:
                for write in [folder.write(key, None) for key in keys[first : first + _IN_FLIGHT]]:
                    write.result()
            except ValueError as error:
                raise UserError(f"{url}: its files cannot be deleted: {first_line(error)}") from None
        return
    for key in keys:
        try:
            (Path(url) / key).unlink()
        except OSError as error:
            raise UserError(f"{url}/{key} cannot be deleted: {error.strerror}.") from None
    emptied = {parent for key in keys for parent in Path(key).parents if parent.name}
    for folder in sorted(emptied, key=lambda folder: -len(folder.parts)):
        with contextlib.suppress(OSError):  # others' files are in it
            (Path(url) / folder).rmdir()


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be listed: {error.strerror}; choose another place.") from None
