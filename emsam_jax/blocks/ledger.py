"""Records which blocks of a stage are done, in a folder of small JSON files on any storage that TensorStore writes.

    STAGE/identity.json     facts that all entries share: configuration, input, model
    STAGE/done/Z-Y-X        an entry, written after the block's data is durable
    STAGE/failed/Z-Y-X      the traceback of a block that raised, until it is done

A stage is a function of (block, identity) that may be repeated; an entry is worth nothing under another identity. Where
the process holds the RunLock of the ledger's folder, nothing is written once that is lost.
"""

import contextlib
import dataclasses
import datetime
import json
import math
import re
import traceback
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import tensorstore as ts

from emsam_jax.blocks.block import Block
from emsam_jax.blocks.fingerprint import hash_of
from emsam_jax.blocks.interruption import LockLostError
from emsam_jax.blocks.lock import expect_lease, token_at
from emsam_jax.errors import UserError
from emsam_jax.storage import normalise, open_folder, read_key, write_key
from emsam_jax.volumes import Voxel

_INDEX = re.compile(rb"([0-9]{1,18})-([0-9]{1,18})-([0-9]{1,18})")


@dataclasses.dataclass(frozen=True)
class Entry:
    stage: str
    block: Voxel
    identity: str  # hash of the facts
    checksum: str  # of the data written, or one of `written.EMPTY`, `written.SKIPPED`
    seconds: float
    run: str  # which run of the program wrote it
    at: str  # when


class Status(NamedTuple):
    done: int
    failed: int


class Ledger:
    """Entries of one stage at `url`."""

    def __init__(self, url: str, stage: str, identity: Mapping[str, Any], token: str | None = None):
        """Raises where the stage was begun under another identity. `token`: of a lock that another process holds."""
        self.url, self.stage = normalise(url), stage
        self.run = uuid.uuid4().hex[:12]
        self.token = token_at(self.url) if token is None else token
        self._folder = open_folder(self.url)
        facts = json.loads(json.dumps(dict(identity)))
        self.identity = hash_of(facts)
        found = read_facts(self.url, stage)
        if found is None:
            self.expect_lease()
            write_key(self._folder, f"{stage}/identity.json", json.dumps(facts, indent=2).encode())
        elif found != facts:
            raise UserError(
                f"{self.url}: what is there comes from another run, with {differences(found, facts)}; "
                "choose another output or delete it."
            )

    @classmethod
    def existing(cls, url: str, stage: str) -> "Ledger | None":
        """Opens a ledger for reading, under the identity that it has; None where there is none."""
        facts = read_facts(url, stage)
        return None if facts is None else cls(url, stage, facts)

    def done(self) -> set[Voxel]:
        return self._listed("done")

    def failed(self) -> set[Voxel]:
        return self._listed("failed")

    def status(self) -> Status:
        """Counts done and failed blocks by listing them; entries are not read."""
        done = self.done()
        return Status(len(done), len(self.failed() - done))

    def entry(self, block: Block) -> Entry | None:
        """Reads the entry of a block; None where there is none, or one that is damaged or of another identity."""
        entry = _parse(read_key(self._folder, self._key("done", block)) or b"")
        return entry if entry and entry.identity == self.identity and entry.block == block.index else None

    def expect_lease(self) -> None:
        """Raises LockLostError where another run may be writing by now."""
        if self.token:
            expect_lease(self._folder, self.token)

    def record(self, block: Block, checksum: str, seconds: float) -> None:
        """Records a block as done, durably; to be called after its data is durable."""
        self.expect_lease()
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        entry = Entry(self.stage, block.index, self.identity, checksum, round(seconds, 4), self.run, at)
        write_key(self._folder, self._key("done", block), json.dumps(dataclasses.asdict(entry)).encode())
        failed = self._key("failed", block)
        if read_key(self._folder, failed) is not None:  # which costs less than deleting what is not there
            write_key(self._folder, failed, None)

    def forget(self, block: Block) -> None:
        self.expect_lease()
        write_key(self._folder, self._key("done", block), None)

    @contextlib.contextmanager
    def keeping_failures(self, block: Block) -> Iterator[None]:
        """Records the traceback of what is raised inside as the block's failure, and raises it again."""
        try:
            yield
        except LockLostError:
            raise
        except Exception as error:
            self.fail(block, error)
            raise

    def fail(self, block: Block, error: BaseException) -> None:
        self.expect_lease()
        write_key(self._folder, self._key("failed", block), "".join(traceback.format_exception(error)).encode())

    def traceback_of(self, block: Block) -> str | None:
        content = read_key(self._folder, self._key("failed", block))
        return None if content is None else content.decode(errors="replace")

    def failures(self) -> dict[str, str]:
        """Returns the last line of the traceback of each failed block, by the block's name."""
        found = {}
        for index in sorted(self.failed() - self.done()):
            name = "-".join(map(str, index))
            content = read_key(self._folder, f"{self.stage}/failed/{name}") or b""
            lines = content.decode(errors="replace").strip().splitlines()
            found[name] = lines[-1] if lines else ""
        return found

    def _key(self, kind: str, block: Block) -> str:
        return f"{self.stage}/{kind}/{block.name}"

    def _listed(self, kind: str) -> set[Voxel]:
        prefix = f"{self.stage}/{kind}/"
        keys = self._folder.list(ts.KvStore.KeyRange(prefix, prefix[:-1] + "0"), strip_prefix_length=len(prefix))
        names = (_INDEX.fullmatch(key) for key in keys.result())  # a write cut short leaves other names
        return {(int(name[1]), int(name[2]), int(name[3])) for name in names if name}


class Facts(dict[str, Any]):
    """What `identity.json` says, read by name and type: anyone may have written it."""

    def __init__(self, found: Mapping[str, Any], file: str):
        super().__init__(found)
        self._file = file

    def text(self, name: str) -> str:
        return self._expect(name, "text", isinstance(self.get(name), str))

    def flag(self, name: str) -> bool:
        return self._expect(name, "true or false", isinstance(self.get(name), bool))

    def sides(self, name: str) -> Voxel:
        """Returns three sides z, y, x of a box."""
        found: Any = self.get(name)
        fits = isinstance(found, list) and len(found) == 3 and all(type(side) is int and side > 0 for side in found)
        z, y, x = self._expect(name, "three numbers above 0", fits and math.prod(found) < 1 << 62)
        return z, y, x

    def _expect(self, name: str, kind: str, fits: bool) -> Any:
        if not fits:
            raise UserError(f"{self._file}: expected {name} to be {kind}, found {self.get(name)!r:.40}; delete it.")
        return self[name]


def read_facts(url: str, stage: str) -> Facts | None:
    """Reads the identity that a stage was begun under; None where it was not begun."""
    content, file = read_key(open_folder(normalise(url)), f"{stage}/identity.json"), f"{url}/{stage}/identity.json"
    if content is None:
        return None
    try:
        return Facts(dict(json.loads(content)), file)
    except (ValueError, TypeError, RecursionError):
        raise UserError(f"{file}: expected an object of JSON, found {content!r:.40}; delete it.") from None


def _parse(content: bytes) -> Entry | None:
    """Parses an entry; None where it is damaged, or no entry."""
    kinds = {"stage": str, "identity": str, "checksum": str, "seconds": (int, float), "run": str, "at": str}
    try:
        found = json.loads(content)
        entry = Entry(**{**found, "block": tuple(found["block"])})
        fits = all(isinstance(found[name], kind) for name, kind in kinds.items())
        timed = datetime.datetime.fromisoformat(entry.at).tzinfo and 0 <= entry.seconds < math.inf
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry if fits and timed else None


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Lists each field that differs, with both values."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return "; ".join(f"{name} {there.get(name)!r:.200} there, {here.get(name)!r:.200} here" for name in names)
