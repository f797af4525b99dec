"""A volume that takes another's place once it is whole: written beside it, and put there by renaming its folder.

Killed at any moment, the old one or the new one is whole. Object stores have no rename: there the old one goes first.
"""

import os
from pathlib import Path

from emsam_jax.errors import UserError
from emsam_jax.storage.destination import MARKER, VOLUME_FILES, read_kinds
from emsam_jax.storage.location import is_remote
from emsam_jax.storage.removal import remove


def beside(url: str) -> str:
    """Where to write what may replace another: hidden in the same folder; in an object store its own place."""
    return url if is_remote(url) else str(_near(url, "unfinished"))


def put_in_place(url: str) -> None:
    """Renames what was written `beside` to `url`; the volume there is removed, others' files in its folder stay."""
    if is_remote(url):
        return
    place, new = Path(os.path.realpath(url)), Path(beside(url))
    try:
        if place.exists():
            place.rename(_near(url, "replaced"))
        new.rename(place)
    except OSError as error:
        raise UserError(f"{new} is whole, but cannot be renamed to {place}: {error.strerror}.") from None
    end_replacing(url)


def end_replacing(url: str) -> None:
    """Ends what a killed run began: without a new volume in its place the old one returns, else it is removed."""
    place, old = Path(os.path.realpath(url)), _near(url, "replaced")
    if is_remote(url) or not os.path.lexists(old):
        return
    if not read_kinds(str(old)):
        raise UserError(f"{old}: expected a volume that {place} replaces, found files of others; move them away.")
    try:
        if place.exists():
            remove(str(old), VOLUME_FILES)
            _move(old, place)
        else:
            old.rename(place)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be moved to {place}: {error.strerror}; move it away.") from None


def _move(old: Path, place: Path) -> None:
    """What is left there, and last of all the marker, by which the folder is known as ours."""
    for at, folders, files in os.walk(old, topdown=False):
        here, there = Path(at), place / Path(at).relative_to(old)
        there.mkdir(parents=True, exist_ok=True)
        for name in (*files, *(name for name in folders if (here / name).is_symlink())):
            if here / name == old / MARKER:
                continue
            if os.path.lexists(there / name):
                raise UserError(f"{here / name}: expected no such file in {there}, found one; move one of them away.")
            (here / name).rename(there / name)
        if here == old:
            (old / MARKER).unlink()
        here.rmdir()


def _near(url: str, state: str) -> Path:
    """Of the folder itself, where `url` is a link to it: a rename stays on one disk."""
    path = Path(os.path.realpath(url))
    return path.with_name(f".{path.name}.{state}")
