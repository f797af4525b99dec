"""The guide builds without a warning, leads nowhere that is not there, and asks nothing of the web."""

import ast
import html
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from emsam_jax.config import load_config
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


def test_every_field_of_a_config_is_on_its_page():
    made = runpy.run_path(str(ROOT / "docs/config_fields.py"))["page"]()
    assert (ROOT / "docs/config.md").read_text() == made, "call python docs/config_fields.py"
    rows = re.findall(r"^\| `(\w+)` \|.+\| (.*) \|$", made, re.MULTILINE)
    assert len(rows) > 100
    assert not [name for name, comment in rows if not comment], "a field without a comment"


def test_both_forms_of_a_config_say_the_same(tmp_path: Path):
    text = (ROOT / "docs/config.md").read_text()
    for form, ending in (("json", "json"), ("python", "py")):
        (shown,) = re.findall(rf"```{form}\n(.+?)```", text, re.DOTALL)
        (tmp_path / f"experiment.{ending}").write_text(shown)
    first, second = (load_config(str(tmp_path / f"experiment.{ending}")) for ending in ("json", "py"))
    assert first == second
    assert (first.data.patch, first.data.widening) == ((16, 128, 128), "2d")
    assert load_config(f"{tmp_path}/experiment.py:wide").model.channels == (32, 64, 96, 128)


def test_configs_on_other_pages_load(tmp_path: Path):
    shown = [code for page in PAGES for code in re.findall(r"```python\n(.+?)```", page.read_text(), re.DOTALL)]
    configs = [code for code in shown if "def get_config" in code]
    assert len(configs) == 2
    for code in configs:
        (tmp_path / "experiment.py").write_text(code)
        assert load_config(str(tmp_path / "experiment.py")).data.train


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_pages_name_exist(page: Path):
    named = re.findall(r"`((?:emsam_jax|benchmarks|tests|convert|docker)/[\w./-]+)`", page.read_text())
    assert not [name for name in named if not (ROOT / name).exists()]


def test_errors_on_the_page_are_what_the_package_says():
    said = []
    for path in (ROOT / "emsam_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                said.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    everything = "\n".join(said)
    shown = re.findall(r"^\*\*`(.+ .+)`\*\*$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(shown) > 25
    assert not [text for text in shown if not re.search(re.escape(text).replace("…", ".*?"), everything)]


def test_configs_that_pages_name_load_and_the_commands_of_each_are_on_its_page():
    named = {name for page in PAGES for name in re.findall(r"--config=([a-z]\w+(?::\w+)?)(?=[\s`])", page.read_text())}
    assert {"ac34:finetuned", "baseline:literature", "demo"} <= named
    for name in named:
        load_config(name)
    page = (ROOT / "docs/reproducing.md").read_text()
    for name in ("ac34", "baseline", "cremi", "fib25"):
        about = (ROOT / f"emsam_jax/configs/{name}.py").read_text().split('"""')[1]
        for command in re.findall(r"^    (.*emsam train .+)$", about, re.MULTILINE):
            assert f"\n{command}\n" in page
