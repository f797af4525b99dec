"""Downloads an official checkpoint: resumes where it broke off, and the file appears only when it is whole."""

import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from emsam_jax.errors import UserError
from emsam_jax.model import SIZES

BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
_RELEASES = {"sam2": "072824", "sam2.1": "092824"}
OFFICIAL = {
    f"{version}_hiera_{size}": f"{release}/{version}_hiera_{size}.pt"
    for version, release in _RELEASES.items()
    for size in SIZES
}
_PIECE = 1 << 20
_TRIES = 5  # in a row that bring not one more byte


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emsam_jax"


def download(name: str, cache: Path, base_url: str = BASE_URL, *, pause_s: float = 1.0) -> Path:
    """Returns the official checkpoint of this name, from the cache if it is there."""
    if name not in OFFICIAL:
        raise UserError(f"No official checkpoint is called {name!r}; there are {', '.join(OFFICIAL)}.")
    url, file = f"{base_url.rstrip('/')}/{OFFICIAL[name]}", cache / f"{name}.pt"
    if file.exists():
        return file
    cache.mkdir(parents=True, exist_ok=True)
    part, failures = file.with_suffix(".pt.part"), 0
    while True:
        before = _size(part)
        try:
            if _fetch(url, part):
                part.rename(file)
                return file
            reason = "the connection closed early"
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise UserError(
                    f"{url} answered {error.code} {error.reason}; expected the checkpoint. Look at --base_url."
                ) from None
            reason = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        failures = 0 if _size(part) > before else failures + 1
        if failures == _TRIES:
            raise UserError(
                f"{url} could not be fetched ({reason}) in {_TRIES} tries; {_size(part)} bytes are kept in {part}, "
                "and the same command resumes there."
            )
        time.sleep(pause_s * 2**failures)


def _fetch(url: str, part: Path) -> bool:
    """Appends what is missing to `part`; returns whether it is whole now."""
    etag_file = part.with_suffix(".etag")  # of what `part` holds, so that two versions of a file are never mixed
    have = _size(part)
    request = urllib.request.Request(url)
    if have and etag_file.exists():
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", etag_file.read_text())
    try:
        response = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # longer than the file is now: start again
            return False
        raise
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start = have if resumed else 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        if etag := response.headers.get("ETag"):
            etag_file.write_text(etag)
        else:
            etag_file.unlink(missing_ok=True)
        progress = tqdm(desc=part.stem, total=total, initial=start, unit="B", unit_scale=True, mininterval=0.5)
        with part.open("ab" if resumed else "wb") as file, progress:
            while piece := response.read(_PIECE):
                file.write(piece)
                progress.update(len(piece))
            file.flush()
            os.fsync(file.fileno())
    if total is None:
        raise UserError(f"{url} does not say how long it is, so that a broken download could pass for a whole one.")
    if _size(part) != total:
        return False
    etag_file.unlink(missing_ok=True)
    return True


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
