"""Serves a scene to browsers on this machine until a signal comes; or links to one that lies in buckets."""

import getpass
import secrets
import socket
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import neuroglancer as ng
from neuroglancer.static import ImportlibResourcesContentSource
from tornado.web import StaticFileHandler

from emsam_jax.blocks import noticing_signals
from emsam_jax.errors import UserError
from emsam_jax.view.live.arrangement import ERRORS, arrange, source_of
from emsam_jax.view.live.keys import Corrections
from emsam_jax.view.live.scene import Scene
from emsam_jax.view.live.served import Role, ServedVolume
from emsam_jax.volumes import Sizes

LOOPBACK = "127.0.0.1"
_ROLES: dict[str, Role] = {"raw": "grey", "affinities": "affinities", "segmentation": "ids", "truth": "ids"}
_LARGE = 1 << 27  # voxels, from which zooming out without a pyramid is slow
_LOOK = 0.2  # seconds between two looks for a signal


class Session:
    """A viewer with the layers of a scene."""

    def __init__(self, scene: Scene, at_zyx_nm: Sizes | None = None, selected: int | None = None):
        self.scene, self.viewer = scene, ng.Viewer(allow_credentials=False)
        sources: dict[str, Any] = {
            name: source_of(ServedVolume(levels, _ROLES[name]), levels.finest) for name, levels in scene.volumes.items()
        }
        if scene.comparison:
            sources[ERRORS] = source_of(ServedVolume(scene.comparison, "codes"), scene.comparison.finest)
        if scene.objects:
            labels = sources["segmentation"]
            labels.subsources = {"meshes": False}  # the quickly made ones
            sources["segmentation"] = [labels, *serve_objects(scene.objects)]
        self.viewer.set_state(arrange(scene, sources, at_zyx_nm, selected))

    @property
    def url(self) -> str:
        return self.viewer.get_viewer_url()


def serve_objects(folder: str) -> list[str]:
    """Serves what emsam objects made, under a token of its own; returns data sources."""
    found = [name for name in ("meshes", "skeletons", "segments") if Path(folder, name, "info").exists()]
    if not found:
        raise UserError(f"--objects: expected the output of emsam objects on this machine, found none at {folder}.")
    token = secrets.token_hex(20)
    handler = (rf"/objects/{token}/(.*)", StaticFileHandler, {"path": str(Path(folder).absolute())})
    ng.server.global_server.app.add_handlers(".*", [handler])
    return [f"precomputed://{ng.server.get_server_url()}/objects/{token}/{name}" for name in found]


class Client(ImportlibResourcesContentSource):
    """Neuroglancer's own pages, whose lists of places jump at a click."""

    def get_content(self, name: str) -> bytes:
        content = super().get_content(name)
        if name != "index.html":
            return content
        script = (files("emsam_jax.view") / "templates/places.js").read_bytes()
        return content.replace(b"</head>", b"<script>" + script + b"</script></head>")


@contextmanager
def serving(
    scene: Scene, *, port: int = 0, at_zyx_nm: Sizes | None = None, selected: int | None = None
) -> Iterator[Session]:
    """Serves on the loopback alone, under a URL with a token that nobody guesses."""
    check_port(port)
    ng.set_static_content_source(source=Client())
    ng.set_server_bind_address(LOOPBACK, port)
    try:
        yield Session(scene, at_zyx_nm, selected)
    finally:
        ng.stop()


def check_port(port: int) -> None:
    try:
        with socket.create_server((LOOPBACK, port)):
            pass
    except OSError as problem:
        raise UserError(
            f"--port={port}: expected a free port, found one that is taken ({problem.strerror}); choose another, or 0 "
            "for any."
        ) from None


def serve(
    scene: Scene,
    *,
    port: int = 0,
    object_id: int | None = None,
    edits: str = "",
    author: str = "",
    browser: bool = False,
    show: Callable[[str], None] = print,
) -> None:
    """Serves until Ctrl-C or SIGTERM."""
    opened = find_browser() if browser else None
    at = None if object_id is None else scene.find_object(object_id)
    with noticing_signals() as noticed, serving(scene, port=port, at_zyx_nm=at, selected=object_id) as session:
        if edits:
            Corrections(session.viewer, edits, author or find_author())
        for note in (*scene.notes, *tell_slow(scene)):
            show(note)
        show(tell_where(session.url))
        if opened:
            opened.open(session.url)
        while not noticed.signal:
            time.sleep(_LOOK)
    show("Closed.")


def tell_slow(scene: Scene) -> Iterator[str]:
    for levels in scene.volumes.values():
        volume = levels.finest
        if not levels.has_pyramid and volume.box.voxels > _LARGE:
            yield f"{volume.url} has no pyramid: zooming out will be slow; emsam ingest makes a copy with one."


def tell_where(url: str) -> str:
    port = url.rpartition(":")[2].partition("/")[0]
    return (
        f"Open {url}\n"
        f"From another machine, first: ssh -N -L {port}:{LOOPBACK}:{port} {socket.gethostname()}\n"
        "Ctrl-C ends it."
    )


def find_browser() -> Any:
    try:
        return webbrowser.get()
    except webbrowser.Error:
        raise UserError(
            "--browser: expected a browser on this machine, found none; leave it out and open the URL that is printed."
        ) from None


def find_author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise UserError("--author: expected a name for the edits, found neither that nor a user's; give one.") from None
