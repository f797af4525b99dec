"""Meshes and skeletons, drawn by neuroglancer in a browser from a server of plain files."""

import functools
import http.server
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import neuroglancer
import numpy as np
import pytest
from PIL import Image

from emsam_jax.objects import make_objects, plan_objects
from emsam_jax.view.live import Scene, open_levels
from emsam_jax.view.live.session import serving
from emsam_jax.volumes import create_volume
from tests.browsers import WEBGL, open_browser
from tests.objects import tissue_of_shapes as tissue
from tests.programs import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
COLOURS = {tissue.BALL: "#ff0000", tissue.TUBE: "#00ff00"}


class _Files(http.server.SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, format: str, *_) -> None:  # noqa: A002
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of labels and what was made of their objects."""
    volume = create_volume(
        tmp_path / "labels", tissue.SHAPE, np.uint64, tissue.SIZE, offset_zyx=tissue.OFFSET, format="precomputed"
    )
    volume[...] = tissue.draw_shapes()
    make_objects(plan_objects(volume.url, str(tmp_path / "objects"), block=(13, 50, 30)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"precomputed://http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_neuroglancer_draws_them(served: str):
    neuroglancer.set_server_bind_address("127.0.0.1")
    viewer = neuroglancer.Viewer()
    with open_browser(*WEBGL) as browser:
        seen = {}
        for shown in ("meshes", "skeletons"):
            with viewer.txn() as state:
                state.layers["objects"] = neuroglancer.SegmentationLayer(
                    source=[f"{served}/labels", f"{served}/objects/{shown}", f"{served}/objects/segments"],
                    segments=list(COLOURS),
                    segment_colors=COLOURS,
                )
                look_from_afar(state)
            if not seen:
                browser.get(viewer.get_viewer_url())
            seen[shown] = wait_for_colours(browser, 5_000 if shown == "meshes" else 20)
    neuroglancer.stop()
    # The ball is larger than the tube, and skeletons are lines.
    assert seen["meshes"][0] > seen["meshes"][1]
    assert max(seen["skeletons"]) < 5_000


def test_the_viewer_draws_them_with_their_labels(served: str, tmp_path: Path):
    labels = open_levels(str(tmp_path / "labels"), averaged=False)
    scene = Scene("shapes", segmentation=labels, objects=str(tmp_path / "objects"))
    with open_browser(*WEBGL) as browser, serving(scene) as session:
        with session.viewer.txn() as state:
            layer = state.layers["segmentation"]
            layer.segments, layer.segment_colors = list(COLOURS), COLOURS
            look_from_afar(state)
        browser.get(session.url)
        wait_for_colours(browser, 1_000)
        asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in asked if event["method"] == "Network.requestWillBeSent"]
    assert any("/objects/" in url and "/meshes/" in url for url in urls)
    assert not [url for url in urls if "/neuroglancer/mesh/" in url]  # made on the spot where nothing better is there


def look_from_afar(state: Any) -> None:
    """In 3D, from where all is seen: by itself neuroglancer chooses that from what has been loaded by then."""
    size, first = np.array(tissue.SIZE[::-1]), np.array(tissue.OFFSET[::-1])
    state.dimensions = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="nm", scales=size.tolist())
    state.position = first / size + np.array(tissue.SHAPE[::-1]) / 2
    state.projection_scale = 256
    state.layout, state.show_slices = "3d", False


def wait_for_colours(browser, least: int) -> list[int]:
    """Looks until so many pixels of both colours are there, and once more when the drawing has settled."""
    deadline = time.monotonic() + PATIENCE
    while min(found := look(browser)) < least:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    time.sleep(2)
    return look(browser)


def look(browser) -> list[int]:
    """How many pixels are of the ball's colour, and of the tube's."""
    picture = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))[60:].astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return [
        int(((one > 60) & (other < one / 3) & (blue < one / 3)).sum()) for one, other in ((red, green), (green, red))
    ]
