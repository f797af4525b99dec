"""Downloads an official checkpoint: resumes a broken transfer, checks the SHA-256, and only then shows the file.

From Meta's server by a loop of our own, since pooch begins again from scratch after a broken transfer; or from the
Hugging Face hub, by its client.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from emsam_jax.errors import UserError
from emsam_jax.storage import fetch_from_hub


class Official(NamedTuple):
    place: str  # below the base URL
    sha256: str  # none is published there; as micro-sam and others have pinned it for the same files


OFFICIAL = {
    place.partition("/")[2].removesuffix(".pt"): Official(place, digest)
    for place, digest in {
        "072824/sam2_hiera_tiny.pt": "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
        "072824/sam2_hiera_small.pt": "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
        "072824/sam2_hiera_base_plus.pt": "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
        "072824/sam2_hiera_large.pt": "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
        "092824/sam2.1_hiera_tiny.pt": "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        "092824/sam2.1_hiera_small.pt": "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        "092824/sam2.1_hiera_base_plus.pt": "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        "092824/sam2.1_hiera_large.pt": "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    }.items()
}
BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
_PIECE = 1 << 20
_TRIES = 5  # in a row that bring not one more byte


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emsam_jax"


def download(name: str, cache: Path, base_url: str = BASE_URL, *, pause_s: float = 1.0) -> Path:
    """Returns the official checkpoint of this name, from the cache if it is there; its digest is checked either way."""
    if name not in OFFICIAL:
        raise UserError(f"No official checkpoint is called {name!r}; there are {', '.join(OFFICIAL)}.")
    official, file = OFFICIAL[name], cache / f"{name}.pt"
    url = f"{base_url.rstrip('/')}/{official.place}"
    if file.exists():
        if (found := sha256(file)) != official.sha256:
            raise _unlike(str(file), official, found, "remove it, and the same command downloads it again")
        return file
    cache.mkdir(parents=True, exist_ok=True)
    part, failures = file.with_suffix(".pt.part"), 0
    while True:
        before = _size(part)
        try:
            if _fetch(url, part):
                if (found := sha256(part)) != official.sha256:
                    part.unlink()
                    raise _unlike(url, official, found, "nothing of it was kept; look at --base_url")
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


def download_from_hub(name: str) -> Path:
    """Returns the official checkpoint of this name from the Hugging Face hub, through its client's cache."""
    repository, file = f"hf:facebook/{name.replace('_', '-')}", f"{name}.pt"
    found = fetch_from_hub(repository, [file]) / file
    if not found.exists():
        raise UserError(f"{repository}: expected {file} there, found none; leave --source=hf out.")
    if (digest := sha256(found)) != OFFICIAL[name].sha256:
        raise _unlike(f"{repository}, {file}", OFFICIAL[name], digest, "leave --source=hf out")
    return found


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


def _unlike(source: str, official: Official, found: str, remedy: str) -> UserError:
    return UserError(
        f"{source}: expected {official.place} with SHA-256 {official.sha256}, found {found}: it is damaged or another "
        f"file; {remedy}."
    )


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
