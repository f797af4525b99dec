"""The viewer of a real evaluation in a real browser: what is drawn, told, jumped to, and written at a key."""

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from emsam_jax.segmentation import in_force, read_edits
from emsam_jax.volumes import open_volume
from tests.browsers import WEBGL, open_browser
from tests.programs import PATIENCE, environment

pytestmark = pytest.mark.slow
REACH = 18  # voxels around the middle that are looked at


class Page(NamedTuple):
    """The viewer in a browser."""

    browser: Any
    url: str
    edits: Path

    def ask(self, expression: str) -> Any:
        return self.browser.execute_script(f"return {expression}")

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := holds():
                return found
            time.sleep(0.1)
        raise AssertionError(what)

    def show(self, *names: str) -> np.ndarray:
        """Shows these layers alone, and returns the pixels of the x-y panel."""
        wanted = json.dumps(names)
        self.ask(f"viewer.layerManager.managedLayers.forEach(l => l.setVisible({wanted}.includes(l.name)))")
        return self.pixels()

    def pixels(self) -> np.ndarray:
        """Those of the first panel, once all that is visible has been drawn."""
        self.until(lambda: self.ask("viewer.isReady()"), "chunks that were never drawn")
        time.sleep(0.3)
        panel = self.panel()
        x, y, width, height = (int(panel[name]) for name in ("x", "y", "width", "height"))
        screen = Image.open(io.BytesIO(self.browser.get_screenshot_as_png()))
        return np.asarray(screen.convert("RGB"))[y : y + height, x : x + width].astype(int)

    def sample(self, pixels: np.ndarray) -> np.ndarray:
        """The pixel in the middle of each voxel around the one in the panel's middle, beside the axes drawn there."""
        a_voxel = 1 / self.ask("viewer.navigationState.zoomFactor.value")
        places = np.arange(-REACH, REACH + 1) * a_voxel + 0.2 * a_voxel
        rows, columns = ((side / 2 + places).astype(int) for side in pixels.shape[:2])
        return pixels[np.ix_(rows, columns)]

    def control(self, name: str, control: str, value: Any) -> None:
        """Moves a slider or ticks a checkbox."""
        controls = f"{layer(name)}.shaderControlState.state"
        self.ask(f"({controls}.get('{control}').trackable.value = {json.dumps(value)}, 0)")

    def panel(self) -> dict[str, float]:
        return self.ask("document.querySelector('.neuroglancer-rendered-data-panel').getBoundingClientRect().toJSON()")

    def position(self) -> list[float]:
        return self.ask("Array.from(viewer.position.value)")

    def point_at(self, zyx: tuple[int, int, int]) -> None:
        """Moves there and puts the pointer on the middle of the panel, where that is."""
        z, y, x = (place + 0.5 for place in zyx)
        self.ask(f"(viewer.position.value = Float32Array.of({x}, {y}, {z}), 0)")
        self.pixels()
        panel = self.browser.find_element("css selector", ".neuroglancer-rendered-data-panel")
        for by in (3, 0):
            self.hands.move_to_element_with_offset(panel, by, by).perform()
        time.sleep(0.3)

    def press(self, key: str) -> None:
        self.hands.send_keys(key).perform()

    @property
    def hands(self) -> Any:
        from selenium.webdriver.common.action_chains import ActionChains

        return ActionChains(self.browser)


@pytest.fixture(scope="module")
def page(answered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    _, _, out = answered
    edits = tmp_path_factory.mktemp("edits") / "edits.jsonl"
    command = [sys.executable, "-m", "emsam_jax", "view", f"--out={out}", f"--edits={edits}", "--author=ada"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(PYTHONUNBUFFERED="1")
    )
    assert process.stdout
    assert process.stderr
    try:
        line = process.stdout.readline()
        url = line.removeprefix("Open ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v/[0-9a-f]{40}/", url), line
        with open_browser(*WEBGL) as browser:
            browser.get(url)
            opened = Page(browser, url, edits)
            opened.until(lambda: opened.ask("viewer.layerManager.managedLayers.length > 6"), "layers")
            yield opened
            asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        urls = {e["params"]["request"]["url"] for e in asked if e["method"] == "Network.requestWillBeSent"}
        root = url.partition("/v/")[0]
        assert {each for each in urls if not each.startswith((root, "data:", "blob:"))} == set()
    finally:
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert rest.endswith("Closed.\n")


@pytest.fixture(scope="module")
def shown(answered, study) -> dict[str, np.ndarray]:
    """Section z 30 of what the viewer shows."""
    _, _, out = answered
    segmentation = open_volume(out / "cells/segmentation.zarr")
    assert segmentation.offset_zyx == (200, 0, 0)
    raw, truth, affinities = study.raw[30], study.truth[30], study.affinities[:3, 22]
    return {"raw": raw, "truth": truth, "affinities": affinities, "segmentation": segmentation[10]}


AT = (30, 24, 24)


def test_grey_values_and_affinities_are_drawn_voxel_by_voxel(page: Page, shown):
    page.point_at(AT)
    assert_like(page.show("raw"), np.repeat(shown["raw"][..., None], 3, -1), page)
    affinities = np.moveaxis(shown["affinities"], 0, -1)
    assert_like(page.show("affinities"), affinities, page)
    page.control("affinities", "threshold", 0.3)  # merge where the affinity is above 0.7
    assert_like(page.pixels(), np.where(affinities > 0.7 * 255, 255, 0), page)


def test_objects_have_the_reports_colours(page: Page, answered):
    _, _, out = answered
    page.point_at(AT)
    for name, alt in (("segmentation", "Segmentation of section z 30"), ("truth", "True neurons in section z 30")):
        page.ask(f"({layer(name)}.displayState.selectedAlpha.value = 1, 0)")
        drawn, reported = page.sample(page.show(name)), report_colours(out / "report.html", alt)
        # The report lays six tenths of a colour over a grey: how far the channels are apart tells the colour.
        wanted = 0.6 * np.diff(drawn, axis=-1)
        apart = np.abs(wanted - np.diff(reported, axis=-1)).max(-1)
        assert np.median(apart) < 6  # pictures are compressed
        assert (apart < 15).mean() > 0.8  # outlines are dark there
        assert np.abs(np.diff(drawn, axis=-1)).max() > 60


def test_errors_are_drawn_in_the_colours_of_splits_and_merges(page: Page, answered, study):
    _, _, out = answered
    verdicts = judge(open_volume(out / "cells/segmentation.zarr")[...], study.truth[20:40])
    crops = [crop(section) for section in verdicts]
    z, expected = max(enumerate(crops), key=lambda each: (len(np.unique(each[1])), (each[1] == "joined").sum()))
    assert {"right", "cut off", "joined"} <= set(np.unique(expected))
    page.point_at((20 + z, 24, 24))
    page.control("errors", "strength", 1)
    drawn = page.sample(page.show("errors"))
    inks = {"cut off": (38, 132, 255), "joined": (255, 92, 40), "both": (188, 96, 214), "unsegmented": (240, 200, 70)}
    for kind, ink in inks.items():
        near = np.abs(drawn - ink).max(-1) < 8
        assert (near == (expected == kind)).mean() > 0.98, kind
    page.control("errors", "cut_off", False)
    assert not (np.abs(page.sample(page.pixels()) - inks["cut off"]).max(-1) < 8).any()


def test_the_id_under_the_pointer_is_told(page: Page, shown):
    page.show("raw", "segmentation", "truth")
    for y, x in ((24, 24), (10, 30), (40, 12)):
        page.point_at((30, y, x))
        for name in ("segmentation", "truth", "raw"):
            told = page.ask(
                "Array.from(document.querySelectorAll('.neuroglancer-layer-item')).find(item => "
                f"item.querySelector('.neuroglancer-layer-item-label').textContent === '{name}')"
                ".querySelector('.neuroglancer-layer-item-value').textContent"
            )
            assert told.split()[:1] == ([str(shown[name][y, x])] if shown[name][y, x] or name == "raw" else []), name


def test_a_click_on_a_worst_object_goes_there_and_tells_its_pieces(page: Page, answered):
    scores, _, _ = answered
    worst = scores["volumes"]["cells"][scores["headline"]]["worst"]
    rows = sorted((row for kind in ("splits", "merges") for row in worst[kind]), key=lambda row: -row["bits"])
    entry = ".neuroglancer-annotation-list-entry"
    for i in (0, 1):
        z, y, x = rows[i]["at_zyx"]
        expected = [x + 0.5, y + 0.5, z + 20.5]
        entries = page.until(lambda: page.browser.find_elements("css selector", entry)[: 1 + i], "a list")  # noqa: B023
        assert str(rows[i]["id"]) in entries[i].text
        entries[i].click()
        page.until(lambda: np.allclose(page.position(), expected), f"{page.position()} is not {expected}")  # noqa: B023
    told = "document.querySelector('.neuroglancer-selection-details')?.innerText ?? ''"
    page.until(lambda: str(rows[1]["id"]) in page.ask(told).split(), f"no {rows[1]['id']} among the pieces told")


def test_the_guides_picture(page: Page, tmp_path: Path):
    """With EMSAM_PICTURE=docs/images/viewer.png it is made anew."""
    page.point_at((30, 27, 21))
    page.ask(f"({layer('segmentation')}.displayState.selectedAlpha.value = 0.4, 0)")  # as it begins
    page.control("errors", "strength", 0.75)
    page.control("errors", "cut_off", True)
    page.show("raw", "segmentation", "errors", "worst objects")
    picture = Path(os.environ.get("EMSAM_PICTURE", tmp_path / "viewer.png"))
    page.browser.save_screenshot(str(picture))
    assert 30_000 < picture.stat().st_size < 300_000


def test_keys_write_edits_and_undo_them(page: Page):
    page.show("raw", "segmentation", "edits")
    a, b = (30, 20, 20), (30, 30, 34)

    def press(key: str) -> None:
        """And waits until the viewer has answered: it shows what the server then sends."""
        status = "document.querySelector('#neuroglancer-status-container').innerText"
        before = page.ask(status)
        page.press(key)
        page.until(lambda: page.ask(status) != before, f"no answer to {key}")
        time.sleep(0.3)

    def type_at(key: str, *places: tuple[int, int, int]) -> None:
        for place in places:
            page.point_at(place)
            press(key)

    def written(count: int) -> list:
        page.until(lambda: page.edits.exists() and len(read_edits(page.edits)) == count, f"{count} edits")
        return list(in_force(read_edits(page.edits)))

    type_at("j", a, b)
    (join,) = written(1)
    assert (join.kind, join.author) == ("join", "ada")
    for point, (z, y, x) in zip(join.points_zyx_nm, (a, b), strict=True):
        assert np.abs(np.array(point) - [10 * z + 5, 10 * y + 5, 10 * x + 5]).max() < 5
    type_at("p", b, a)
    type_at("d", a)
    assert [edit.kind for edit in written(3)] == ["join", "part", "done"]
    type_at("j", a)
    press("u")  # forgets the first place
    press("u")
    assert [edit.kind for edit in written(4)] == ["join", "part"]
    count = f"Array.from({layer('edits')}.localAnnotations).length"
    page.until(lambda: page.ask(count) == 2, f"{page.ask(count)} edits drawn, not 2")


def layer(name: str) -> str:
    return f"viewer.layerManager.getLayerByName('{name}').layer"


def crop(section: np.ndarray) -> np.ndarray:
    """What the panel's middle shows of a section, as `Page.sample` has it."""
    return section[24 - REACH : 25 + REACH, 24 - REACH : 25 + REACH]


def assert_like(pixels: np.ndarray, section: np.ndarray, page: Page) -> None:
    apart = np.abs(page.sample(pixels) - crop(section).astype(int)).max(-1)
    assert (apart <= 2).mean() > 0.98, np.argwhere(apart > 2)


def report_colours(report: Path, alt: str) -> np.ndarray:
    """The same voxels of a panel of the report, by the colour in their middle."""
    (image,) = re.findall(rf'<img[^>]*src="data:image/webp;base64,([^"]+)"[^>]*alt="{alt}', report.read_text())
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")).astype(int)
    step = len(picture) // 48
    return crop(picture[step // 2 :: step, step // 2 :: step])


def judge(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Each voxel's verdict, neuron by neuron and segment by segment."""
    cut, joined = np.zeros(labels.shape, bool), np.zeros(labels.shape, bool)

    def main(ids: np.ndarray) -> int:
        found, counts = np.unique(ids[ids > 0], return_counts=True)
        return found[counts.argmax()] if found.size else 0

    for neuron in np.unique(truth[truth > 0]):
        cut |= (truth == neuron) & (labels != main(labels[truth == neuron]))
    for segment in np.unique(labels[labels > 0]):
        joined |= (labels == segment) & (truth != main(truth[labels == segment]))
    told = np.select([cut & joined, cut, joined], ["both", "cut off", "joined"], "right")
    told[labels == 0] = "unsegmented"
    told[truth == 0] = "unknown"
    return told
