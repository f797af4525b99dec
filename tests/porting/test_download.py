"""Downloads from a local server that breaks connections, restarts and changes its mind."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.porting import OFFICIAL, download, download_from_hub
from tests.sharing.hub import Repo

NAME = "sam2.1_hiera_tiny"


class Server(ThreadingHTTPServer):
    """Serves `contents` at the official place; each number in `cuts` breaks one answer after so many bytes."""

    def __init__(self, contents: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents, self.cuts, self.ranges = contents, [], []
        self.url = f"http://127.0.0.1:{self.server_port}/models"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        contents = server.contents
        if self.path != f"/models/{OFFICIAL[NAME].place}":
            return self.send_error(404)
        etag = f'"{hashlib.sha256(contents).hexdigest()[:16]}"'
        asked = self.headers.get("Range") if self.headers.get("If-Range") == etag else None
        server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(contents) - start))
        self.end_headers()
        body = contents[start:]
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
        return None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = Server(np.random.default_rng(0).bytes(3_000_000))
    expect(served.contents, monkeypatch)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def expect(contents: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the digest of these for the official one."""
    monkeypatch.setitem(OFFICIAL, NAME, OFFICIAL[NAME]._replace(sha256=hashlib.sha256(contents).hexdigest()))


def fetch(server: Server, cache: Path) -> Path:
    return download(NAME, cache, server.url, pause_s=0.0)


def test_a_broken_download_is_resumed_and_appears_whole(server, tmp_path):
    server.cuts = [1_000_000, 500_000, 0]
    file = fetch(server, tmp_path)
    assert file.read_bytes() == server.contents
    assert server.ranges[0] is None
    assert [int(r[6:-1]) for r in server.ranges[1:]] == [1_000_000, 1_500_000, 1_500_000]
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.pt"]
    assert fetch(server, tmp_path) == file
    assert len(server.ranges) == 4, "what is in the cache is not fetched again"


def test_giving_up_keeps_what_came_and_the_next_start_goes_on(server, tmp_path):
    server.cuts = [2_000_000] + [0] * 5
    with pytest.raises(UserError, match=r"in 5 tries; 2000000 bytes are kept"):
        fetch(server, tmp_path)
    assert not (tmp_path / f"{NAME}.pt").exists()
    server.cuts = []
    assert fetch(server, tmp_path).read_bytes() == server.contents
    assert server.ranges[-1] == "bytes=2000000-"


def test_two_versions_of_a_file_are_never_mixed(server, tmp_path, monkeypatch):
    server.cuts = [1_000_000] + [0] * 5
    with pytest.raises(UserError):
        fetch(server, tmp_path)
    server.cuts, server.contents = [], server.contents[::-1]
    expect(server.contents, monkeypatch)
    assert fetch(server, tmp_path).read_bytes() == server.contents


def test_another_file_of_the_same_length_is_refused_wherever_it_lies(server, tmp_path):
    """A flipped bit."""
    contents = server.contents
    server.contents = contents[:-1] + bytes([contents[-1] ^ 1])
    with pytest.raises(UserError, match=r"tiny\.pt: expected .* SHA-256 \w{64}, found \w{64}: .*--base_url"):
        fetch(server, tmp_path)
    assert not list(tmp_path.iterdir())
    server.contents = contents
    file = fetch(server, tmp_path)
    file.write_bytes(contents[:-1])
    with pytest.raises(UserError, match=r"sam2\.1_hiera_tiny\.pt: expected .* SHA-256 .*; remove it"):
        fetch(server, tmp_path)


def test_a_refusal_is_final_and_names_the_address(server, tmp_path):
    with pytest.raises(UserError, match=r"/elsewhere/092824/sam2\.1_hiera_tiny\.pt answered 404"):
        download(NAME, tmp_path, f"{server.url}/elsewhere")
    with pytest.raises(UserError, match="No official checkpoint is called 'sam3'"):
        download("sam3", tmp_path, server.url)
    with closed_port() as url, pytest.raises(UserError, match="Connection refused"):
        download(NAME, tmp_path, url, pause_s=0.0)


def test_the_hub_gives_the_same_file_by_its_own_digest_and_ours(hub, monkeypatch):
    contents = np.random.default_rng(0).bytes(100_000)
    expect(contents, monkeypatch)
    repo = hub.repos["facebook/sam2.1-hiera-tiny"] = Repo()
    repo.commit("main", {f"{NAME}.pt": contents})
    assert download_from_hub(NAME).read_bytes() == contents
    repo.commit("main", {f"{NAME}.pt": contents[::-1]})
    with pytest.raises(
        UserError, match=r"hf:facebook/sam2.1-hiera-tiny, sam2.1_hiera_tiny.pt: expected .* SHA-256 \w{64}"
    ):
        download_from_hub(NAME)
    repo.commit("main", {})
    with pytest.raises(UserError, match=r"expected sam2.1_hiera_tiny.pt there, found none"):
        download_from_hub(NAME)


@contextmanager
def closed_port() -> Iterator[str]:
    gone = Server(b"")
    gone.server_close()
    yield gone.url
