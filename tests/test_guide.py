"""The guide builds without a warning, leads nowhere that is not there, and asks nothing of the web."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT, environment

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_link_leads_to_a_page_and_an_anchor(site: Path):
    texts = {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}
    assert {path.stem for path in texts} == {page.stem for page in PAGES}
    anchors = {path: set(re.findall(r'\bid="?([^"\s>]+)', text)) for path, text in texts.items()}
    for path, text in texts.items():
        for link in re.findall(r'<a\s[^>]*?\bhref="?([^"\s>]+)', text):
            target, _, anchor = html.unescape(link).partition("#")
            if target.startswith(("http://", "https://")):
                continue
            there = (path.parent / target).resolve() if target else path
            there = there / "index.html" if there.is_dir() else there
            assert there.exists(), f"{path.name}: {link}"
            assert not anchor or anchor in anchors[there], f"{path.name}: {link}"


def test_pages_load_nothing_from_the_web_and_are_searched(site: Path):
    for path in site.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img|iframe)\s[^>]*?\b(?:src|href)="?(https?:[^"\s>]+)', path.read_text())
        assert not loaded, f"{path.name}: {loaded}"
    found = json.loads((site / "search/search_index.json").read_text())["docs"]
    assert {entry["location"].partition("#")[0] for entry in found} == {f"{page.stem}.html" for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_pages_name_exist(page: Path):
    named = re.findall(r"`((?:emsam_jax|benchmarks|tests|convert|docker)/[\w./-]+)`", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]
