"""A small volume with three different sides, and a web server that answers byte ranges as the real ones do."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

VOXEL_SIZE = (40.0, 4.0, 8.0)  # nm: every axis another, so that no mix-up passes
OFFSET = (400.0, 40.0, 16.0)  # nm


@pytest.fixture(scope="session")
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (20, 70, 90), dtype=np.uint8)


@pytest.fixture(scope="session")
def ids(grey: np.ndarray) -> np.ndarray:
    """Blocks of equal ids, some beyond 32 bits."""
    blocks = np.random.default_rng(1).integers(0, 2**40, (5, 7, 9), dtype=np.uint64)
    return blocks.repeat(4, 0).repeat(10, 1).repeat(10, 2)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data, span = path.read_bytes(), self.headers.get("Range")
        if span is None:
            self.send_response(200)
        else:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(len(data), int(last) + 1) if first and last else len(data)
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            data = data[start:stop]
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class _PlainHandler(_Handler):
    """Answers a range with everything."""

    def do_GET(self) -> None:
        del self.headers["Range"]
        super().do_GET()


@pytest.fixture
def listen() -> Iterator[Callable[..., str]]:
    """Starts a local web server with a handler of requests; gives its URL."""
    servers = []

    def start(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve(listen: Callable[..., str]) -> Callable[..., str]:
    """Puts a folder on a local web server; gives its URL."""
    return lambda folder, ranges=True: listen(
        functools.partial(_Handler if ranges else _PlainHandler, directory=str(folder))
    )
