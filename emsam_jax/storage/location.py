"""Locates volumes: a local path or a URL, as a TensorStore key-value store."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorstore as ts

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage.context import shared_context

_SCHEMES = ("file", "gs", "s3", "http", "https", "memory")


def is_remote(url: str) -> bool:
    return re.match(r"[a-z0-9]+://", url) is not None


def normalise(url: str) -> str:
    """Removes trailing slashes, and makes local paths absolute."""
    if url.startswith("file://"):
        url = url.removeprefix("file://")
    try:
        url.encode()
    except UnicodeEncodeError:
        raise UserError(f"{url!a}: expected a path in UTF-8; rename the file.") from None
    if "\0" in url:
        raise UserError(f"{url!a}: expected a path or URL, found one with a zero byte.")
    if not is_remote(url):
        path = Path(url).expanduser().absolute()
        return str(path.resolve() if ".." in path.parts else path)  # TensorStore takes no `..`
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES:
        raise UserError(f"{url}: expected a path or a URL that starts with {', '.join(_SCHEMES)}; found {scheme}://.")
    return url.rstrip("/")


def folder_spec(url: str) -> dict[str, Any]:
    """Returns TensorStore's JSON of the key-value store whose keys are the files under `url`."""
    if not is_remote(url):
        return {"driver": "file", "path": url.rstrip("/") + "/"}
    try:
        return ts.KvStore.Spec(url + "/").to_json()
    except ValueError as error:
        raise UserError(f"{url}: expected a URL of a folder: {first_line(error)}.") from None


def open_folder(url: str, context: ts.Context | None = None) -> ts.KvStore:
    return ts.KvStore.open(folder_spec(url), context=context or shared_context()).result()


def split_last(url: str) -> tuple[str, str]:
    """Splits parent and last name. The parent is empty when there is none: of / and of a host or bucket."""
    parent, _, name = url.rpartition("/")
    return ("", name) if parent.endswith(":/") or not parent else (parent, name)


def read_key(
    folder: ts.KvStore, key: str, first_bytes: int | None = None, timeout: float | None = None
) -> bytes | None:
    """Reads the content, or its first bytes; None where there is no such file. The timeout is in seconds."""
    try:
        span = None if first_bytes is None else slice(0, first_bytes)
        found = folder.read(key, byte_range=span).result(timeout)
    except TimeoutError:
        raise UserError(f"{folder.url.rstrip('/')}/{key} cannot be read: no answer in {timeout:g} seconds.") from None
    except ValueError as error:
        if "OUT_OF_RANGE" in str(error):  # shorter than what was asked for
            return read_key(folder, key, timeout=timeout)
        if "NOT_FOUND" in str(error) or "Is a directory" in str(error) or "Not a directory" in str(error):
            return None
        raise UserError(f"{folder.url.rstrip('/')}/{key} cannot be read: {first_line(error)}") from None
    return found.value if found.state == "value" else None


def write_key(folder: ts.KvStore, key: str, content: bytes | None) -> None:
    """Replaces the file durably; a reader sees the old content or the new, never a part. None deletes."""
    write_keys(folder, {key: content})


def write_keys(folder: ts.KvStore, contents: Mapping[str, bytes | None]) -> None:
    """Replaces several files at once, each as `write_key` does."""
    writes = {key: folder.write(key, content) for key, content in contents.items()}
    for key, write in writes.items():
        try:
            write.result()
        except ValueError as error:
            place, reason = f"{folder.url.rstrip('/')}/{key}", first_line(error)
            if place.startswith("file://"):  # the operating system's words come last
                place, reason = place.removeprefix("file://"), f"{reason.rpartition(': ')[2]}."
            raise UserError(f"{place} cannot be written: {reason}") from None


def write_whole(place: str | Path, content: str | bytes) -> None:
    """As `write_key`, to a path or URL."""
    folder, name = split_last(normalise(str(place)))
    write_key(open_folder(folder), name, content.encode() if isinstance(content, str) else content)
