"""Repositories of the Hugging Face hub, `hf:OWNER/NAME[@REVISION]`: files of theirs in the cache, and commits to them.

huggingface_hub does transport, retries, cache and login, by its own settings (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE,
HF_TOKEN). Here its errors become sentences, and each file's content is compared with the hash that the hub knows it by.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from emsam_jax.errors import UserError, first_line

_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+(/[\w.-]+)*))?")
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


class _Repository(NamedTuple):
    repo: str  # owner/name
    revision: str  # branch, tag or commit

    def __str__(self) -> str:
        return f"hf:{self.repo}" + f"@{self.revision}" * (self.revision != "main")


def is_on_hub(name: str) -> bool:
    return name.startswith("hf:")


def fetch_from_hub(name: str, files: Sequence[str]) -> Path:
    """Downloads those of the files that the repository has; returns the folder of this commit in the cache.

    What is in the cache is not downloaded again, and is taken where the hub cannot be reached.
    """
    where = _parse(name)
    with _errors_of(where):
        from huggingface_hub import constants, snapshot_download

        folder = Path(
            snapshot_download(
                where.repo, revision=where.revision, allow_patterns=list(files), endpoint=constants.ENDPOINT
            )
        )
    for file in files:
        _check_content(where, folder / file)
    return folder


def commit_to_hub(name: str, folder: Path, files: Sequence[str], message: str, *, private: bool = False) -> str:
    """Makes these of the folder's files the repository's in one commit, and removes the others of `files` there.

    Creates the repository, and the branch, where they are missing. Returns the commit's own name.
    """
    where = _parse(name)
    with _errors_of(where):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

        api = HfApi(endpoint=constants.ENDPOINT)
        api.create_repo(where.repo, private=private or None, exist_ok=True)
        if where.revision != "main":
            api.create_branch(where.repo, branch=where.revision, exist_ok=True)
        here = [file for file in files if (folder / file).exists()]
        there = set(api.list_repo_files(where.repo, revision=where.revision))
        changes = [
            *(CommitOperationAdd(file, folder / file) for file in here),
            *(CommitOperationDelete(file) for file in files if file in there and file not in here),
        ]
        commit = api.create_commit(where.repo, changes, commit_message=message, revision=where.revision)
    return f"hf:{where.repo}@{commit.oid}"


def _parse(name: str) -> _Repository:
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserError(f"{name}: expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION, found another form.")
    return _Repository(found["repo"], found["revision"] or "main")


def _check_content(where: _Repository, file: Path) -> None:
    """Compares a file of the cache with its name there: the SHA-256 of a large one, git's hash of another."""
    if not file.is_symlink():  # the repository has none of this name, or the cache is on a disk without links
        return
    stored = file.parent / file.readlink()
    expected = stored.name
    with stored.open("rb") as opened:
        if re.fullmatch("[0-9a-f]{64}", expected):
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        else:
            begun = hashlib.sha1(b"blob %d\0" % stored.stat().st_size, usedforsecurity=False)
            found = hashlib.file_digest(opened, lambda: begun).hexdigest()
    if found != expected:
        file.unlink()
        stored.unlink()
        raise UserError(
            f"{where}: expected {file.name} with the hash {expected}, found {found}: it is damaged, and was removed "
            "from the cache; the same command downloads it again."
        )


@contextlib.contextmanager
def _errors_of(where: _Repository) -> Iterator[None]:
    """Raises UserError for whatever the hub or its client answer inside."""
    try:
        yield
    except Exception as error:
        raise UserError(_in_a_sentence(where, error)) from error


def _in_a_sentence(where: _Repository, error: Exception) -> str:
    from huggingface_hub import constants, errors

    hub, repo = constants.ENDPOINT, f"hf:{where.repo}"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    reason = first_line(cause).rstrip(".")
    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else reason
    told = {  # those that are also others come first
        errors.GatedRepoError: f"{repo} is gated: ask for access at {hub}/{where.repo}, then {_LOG_IN}.",
        errors.RepositoryNotFoundError: (
            f"{repo}: found no such repository at {hub}; correct the name, or, if it is private, {_LOG_IN}."
        ),
        errors.RevisionNotFoundError: (
            f"{repo}: expected a branch, tag or commit as revision, found none that is called {where.revision}."
        ),
        errors.LocalEntryNotFoundError: (
            f"{where}: not all of it is in the cache, and {hub} cannot be asked ({why}); try again with the hub."
        ),
    }
    known = next((sentence for kind, sentence in told.items() if isinstance(error, kind)), None)
    if known is None and isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        known = f"{repo}: {hub} refuses this ({error.response.status_code}); {_LOG_IN}, with the right to do it."
    if known is None and "Consistency check failed" in str(error):
        known = f"{where}: a file ended early and was not kept ({reason}); the same command downloads it again."
    return known or f"{where}: {hub} could not be used ({type(error).__name__}: {reason}); try again."
