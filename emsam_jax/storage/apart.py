"""Checks that a destination and its sources are apart, whatever names they are called by."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emsam_jax.errors import UserError
from emsam_jax.storage.location import is_remote, normalise

_METADATA = ("zarr.json", ".zattrs", ".zarray", "info", "attributes.json")  # that no two volumes share


def check_apart(url: str, sources: Sequence[str], *, holding: bool = False) -> None:
    """Refuses a destination that is a source or lies within one; unless `holding`, one that has a source within it."""
    for place in [place for source in sources if source for place in places_of(source)]:
        if _holds(place, url):
            raise UserError(
                f"{url}: expected a destination apart from the source {place}, found one that is the same or lies "
                "within it; choose another place."
            )
        if not holding and _holds(url, place):
            raise UserError(
                f"{url}: expected a destination apart from the source, found one that has {place} within it; "
                "choose another place."
            )


def places_of(source: str) -> list[str]:
    """Lists paths and URLs that a volume is read from; TensorStore's JSON may name several."""
    if not source.lstrip().startswith("{"):
        return [normalise(source)]
    try:
        return list(_places_in(json.loads(source)))
    except ValueError:  # which cannot be opened either
        return []


def _places_in(spec: Any) -> Iterator[str]:
    if isinstance(spec, str) and "://" in spec:
        yield normalise(spec.partition("|")[0])
    elif isinstance(spec, Mapping):
        if spec.get("driver") == "file":
            yield normalise(str(spec.get("path")))
        if spec.get("driver") in ("gcs", "s3"):
            yield normalise(f"{str(spec['driver']).replace('gcs', 'gs')}://{spec.get('bucket')}/{spec.get('path', '')}")
        yield from (place for value in spec.values() for place in _places_in(value))
    elif isinstance(spec, list | tuple):
        yield from (place for value in spec for place in _places_in(value))


def _holds(outer: str, inner: str) -> bool:
    """Returns whether they are the same, or `inner` lies below `outer`."""
    if is_remote(outer) or is_remote(inner):
        return f"{inner}/".startswith(f"{outer}/")
    path = Path(os.path.realpath(inner))
    found = set().union(*map(_identities, (path, *path.parents)))
    return not found.isdisjoint(_identities(Path(os.path.realpath(outer))))


def _identities(path: Path) -> set[tuple[int, int] | str]:
    """Of a file or folder, and of what describes the volume in it: the same for a mount's names and for hard links."""
    found: set[tuple[int, int] | str] = {
        identity for file in (path, *metadata_files(path)) if (identity := inode_of(file))
    }
    return found or {str(path)}


def metadata_files(folder: Path) -> list[Path]:
    return [folder / name for name in _METADATA if inode_of(folder / name)]


def inode_of(path: Path) -> tuple[int, int] | None:
    """With its device; None where nothing can be found there."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino
