"""Where this software may write: an empty place, or one that it began itself; and the deleting of its own files there.

What others put there is left alone.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage.apart import check_apart
from emsam_jax.storage.location import is_remote, normalise, open_folder, read_key, write_key

_TORN = re.compile(r"(_[0-9a-f]+)?\.__lock$")  # what TensorStore adds to the name of a file until it is whole
_IN_FLIGHT = 256
UNFINISHED = "unfinished.json"  # in a volume that is written at once, until it is whole
_MARKER = "emsam_jax.json"
_SHOWN = 3  # names in a message
_LEDGER = r"ledger/(running\.json|[\w-]+/(identity\.json|(done|failed)/\d+-\d+-\d+))"
_SIZE = r"[\d.e+-]+"
_VOLUME = rf"unfinished\.json|zarr\.json|info|\d+/zarr\.json|\d+/c(/\d+)+|{_SIZE}_{_SIZE}_{_SIZE}/[0-9a-f]+\.shard"


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
    keys = [key for key in list_keys(url) if own.fullmatch(_TORN.sub("", key)) and (not torn or _TORN.search(key))]
    _delete(url, [key for key in keys if _TORN.sub("", key) not in keep])


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


class Kind(NamedTuple):
    """One kind of work: what its folder holds."""

    name: str  # in the marker
    title: str  # in a sentence
    files: str = r"(?!)"  # a pattern of the keys that may be deleted; by default none
    beside: tuple[str, ...] = ()  # names that it writes among others' files; by default the folder is its own


VOLUME = Kind("volume", "a volume", _VOLUME)
CONVERSION = Kind("conversion", "a conversion by emsam_jax.volumes.ingest", f"{_VOLUME}|{_LEDGER}")
SYNTHETIC = Kind("synthetic", "a synthetic volume", _VOLUME)
LABELS = Kind("labels", "labels of eval.py", _VOLUME)
PREDICTION = Kind("prediction", "a prediction")
SEGMENTATION = Kind("segmentation", "a run of segment.py")
EVALUATION = Kind("evaluation", "results of eval.py", beside=("scores.json", "report.html", "postprocess.json"))
TRAINING = Kind(
    "training",
    "a run of train.py",
    beside=(
        *("running.json", "config.json", "metrics.jsonl", "curves.png", "checkpoints"),
        *("encoder", "encoder.partial", "encoder.replaced", "samples", "tensorboard", "validating"),
    ),
)
DEMO = Kind("demo", "a run of the demo", beside=("demo.json",))
VOLUMES = (VOLUME, CONVERSION, SYNTHETIC, LABELS)  # which may be overwritten where that is asked for
_KINDS = (*VOLUMES, PREDICTION, SEGMENTATION, EVALUATION, TRAINING, DEMO)
_TITLES = {kind.name: kind.title for kind in _KINDS}


def claim(url: str, kind: Kind, sources: Sequence[str] = (), *, over: Sequence[Kind] = ()) -> bool:
    """Whether work of this kind was begun there. If not, marks the place as its own, or refuses it.

    `over` are kinds of work that it may replace: the caller removes their files.
    """
    url = normalise(url)
    if check_free(url, kind, sources, over=over):
        return True
    found = read_kinds(url) if kind.beside else []
    marker = json.dumps({"software": "emsam_jax", "wrote": [*found, kind.name]}) + "\n"
    write_key(open_folder(url), _MARKER, marker.encode())
    return False


def check_free(url: str, kind: Kind, sources: Sequence[str] = (), *, over: Sequence[Kind] = ()) -> bool:
    """As `claim`, but writes nothing."""
    url = normalise(url)
    check_apart(url, sources, holding=bool(kind.beside))
    found = read_kinds(url)
    if kind.name in found:
        return True
    others = [name for name in found if name not in [each.name for each in over]]
    if others and not kind.beside:
        raise UserError(
            f"{url}: expected an empty or a new folder or {kind.title}, but there is {_TITLES.get(others[0])} already; "
            "choose another place."
        )
    if kind.beside or not found:
        _refuse_strangers(url, kind)
    return False


def read_kinds(url: str) -> list[str]:
    """Names of the kinds of work that were begun there."""
    content = read_key(open_folder(url), _MARKER)
    try:
        found = json.loads(content or b"null")
    except (ValueError, RecursionError):
        return []
    wrote = found.get("wrote") if isinstance(found, dict) and found.get("software") == "emsam_jax" else None
    return [name for name in wrote if name in _TITLES] if isinstance(wrote, list) else []


def _refuse_strangers(url: str, kind: Kind) -> None:
    """Any file in what is to be a folder of its own; elsewhere those whose names it needs."""
    names = {key.partition("/")[0] for key in list_keys(url)} if is_remote(url) else _names_in(Path(url))
    found = sorted(names & set(kind.beside) if kind.beside else names)
    if found:
        shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        wanted = "a folder without these names" if kind.beside else "an empty or a new folder"
        raise UserError(
            f"{url}: expected {wanted} or {kind.title}, found {shown}, which it did not write; choose another place."
        )


def _names_in(path: Path) -> set[str]:
    try:
        return {child.name for child in path.iterdir()}
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        file = next(each for each in (path, *path.parents) if each.exists())
        raise UserError(f"{path}: expected a folder or a new name, but {file} is a file; choose another.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be listed: {error.strerror}; choose another place.") from None
