"""A hub on this machine: what of the Hugging Face hub's HTTP huggingface_hub uses to fetch files and to commit some."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


class Repo:
    """Branches and commits; `gated` ones tell who asks what there is, but give nothing."""

    def __init__(self) -> None:
        self.branches: dict[str, str] = {}
        self.commits: dict[str, Files] = {}
        self.gated = False
        self.commit("main", {})

    def commit(self, branch: str, files: Files) -> str:
        content = repr((sorted(files.items()), len(self.commits)))
        oid = hashlib.sha1(content.encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        return oid

    def find(self, revision: str) -> str | None:
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".pt"))


def hash_of(path: str, content: bytes) -> str:
    """What the hub names a file's content by."""
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha256(content).hexdigest() if is_large(path) else hashlib.sha1(blob).hexdigest()


class Hub(ThreadingHTTPServer):
    """`served` replaces contents, by path; each number in `cuts` ends one of the large answers after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos: dict[str, Repo] = {}
        self.uploaded: dict[str, bytes] = {}  # by SHA-256
        self.served: Files = {}
        self.cuts: list[int] = []
        self.downloads: list[str] = []  # paths whose content was sent
        self.token = "a token"

    def __enter__(self) -> "Hub":
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Hub  # type: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+?))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if found is None:
            return self.answer(404, {"error": "Not Found"})
        repo = self.server.repos.get(found[1])
        if repo is None:
            return self.refuse(401, "RepoNotFound")
        oid = repo.find((api[3] if api else found[2]) or "main")
        if oid is None:
            return self.refuse(404, "RevisionNotFound")
        if file:
            return self.send_file(repo, oid, file[3])
        if found[2] == "tree":
            return self.answer(200, [describe(name, content) for name, content in repo.commits[oid].items()])
        siblings = [{"rfilename": name} for name in repo.commits[oid]]
        return self.answer(200, {"id": found[1], "modelId": found[1], "sha": oid, "siblings": siblings, "tags": []})

    def send_file(self, repo: Repo, oid: str, path: str) -> None:
        if repo.gated:
            return self.refuse(403, "GatedRepo")
        if path not in repo.commits[oid]:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": oid})
        told = repo.commits[oid][path]
        content = self.server.served.get(path, told)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        headers = {"ETag": f'"{hash_of(path, told)}"', "X-Repo-Commit": oid, "X-Linked-Size": str(len(told))}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.begin(206 if asked else 200, headers, len(content) - start)
        if self.command == "GET":
            self.server.downloads.append(path)
            body = content[start:]
            if is_large(path) and self.server.cuts:
                body, self.close_connection = body[: self.server.cuts.pop(0)], True
            self.wfile.write(body)
        return None

    def do_PUT(self) -> None:
        content = self.body()
        self.server.uploaded[hashlib.sha256(content).hexdigest()] = content
        self.answer(200, {})

    def do_POST(self) -> None:
        body, path = self.body(), unquote(urlsplit(self.path).path)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self.answer(401, {"error": "Invalid username or password."})
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.repos
            self.server.repos.setdefault(name, Repo())
            return self.answer(409 if known else 200, {"url": f"{self.server.url}/{name}"})
        if path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if large := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            assert large[1] in self.server.repos
            objects = [self.where_to(asked) for asked in json.loads(body)["objects"]]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path)
        assert found, path
        return getattr(self, found[2])(found[1], found[3], body)

    def branch(self, name: str, branch: str, _: bytes) -> None:
        branches = self.server.repos[name].branches
        known = branch in branches
        branches.setdefault(branch, branches["main"])
        self.answer(409 if known else 200, {})

    def preupload(self, _: str, __: str, body: bytes) -> None:
        names = [file["path"] for file in json.loads(body)["files"]]
        modes = {name: "lfs" if is_large(name) else "regular" for name in names}
        files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
        self.answer(200, {"files": files})

    def commit(self, name: str, branch: str, body: bytes) -> None:
        repo = self.server.repos[name]
        files = dict(repo.commits[repo.branches[branch]])
        for change in map(json.loads, body.splitlines()):
            value = change["value"]
            if change["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif change["key"] == "lfsFile":
                files[value["path"]] = self.server.uploaded[value["oid"]]
            elif change["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(branch, files)
        self.answer(200, {"commitUrl": f"{self.server.url}/{name}/commit/{oid}", "commitOid": oid})

    def where_to(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {**asked, "actions": {"upload": {"href": f"{self.server.url}/uploads/{asked['oid']}"}}}

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while length := int(self.rfile.readline(), 16):
            found += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def begin(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, status: int, found: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(found).encode()
        self.begin(status, {"Content-Type": "application/json", **(headers or {})}, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.answer(status, {"error": code}, {"X-Error-Code": code, **(headers or {})})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class calls it so)
        pass


def describe(path: str, content: bytes) -> dict[str, Any]:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    large = {"oid": hash_of(path, content), "size": len(content), "pointerSize": 134}
    told = {"type": "file", "path": path, "size": len(content), "oid": git}
    return {**told, "lfs": large} if is_large(path) else told
