"""The house's rules: who imports whom, by which door, under which names, and what a room costs to enter."""

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "emsam_jax"
# Each room imports only what stands above it: the order is the one in which data flows.
ROOMS = (
    *("errors", "command_line", "config", "configs", "storage"),
    *("volumes.formats", "volumes", "volumes.verify", "volumes.synthetic", "blocks", "blocks.dask", "volumes.ingest"),
    *("data", "model.cpu", "model", "targets", "inference", "segmentation", "segmentation.blockwise", "scores"),
    *("view", "view.live", "objects"),
    *("evaluation", "segment_volume", "exports", "training", "prepare", "sharing", "porting", "demo", "commands"),
)
WITHOUT_JAX = {
    "errors",
    "command_line",
    "config",
    "storage",
    "blocks",
    "volumes",
    "segmentation",
    "scores",
    "view",
    "objects",
    "exports",
}
# Imported by their own path, where they are needed, since they load jax or Dask; and an experiment is a file.
BY_PATH = {
    *("evaluation.predicted", "segment_volume.prediction", "inference.on_workers", "training.command"),
    *("training.cost", "training.plan", "sharing.exported_model"),
    "configs.demo",
}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__"))
SCRIPTS = [*ROOT.glob("*.py"), *(ROOT / "convert").glob("*.py"), PACKAGE / "__main__.py"]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if f"{module}.".startswith(f"{room}.")), key=len)


def imports_of(path: Path) -> list[tuple[str, str]]:
    """(module, name) of all that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found += [(str(node.module), alias.name) for alias in node.names]
    return found


def ours(path: Path) -> list[tuple[str, str]]:
    return [(module.removeprefix("emsam_jax."), name) for module, name in imports_of(path) if "emsam_jax." in module]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_follow_the_flow_and_take_the_door(path: Path):
    here = room_of(module_name(path))
    for module, name in ours(path):
        room = room_of(module)
        if f"{here}.".startswith(f"{room}."):  # its own room, or the one that it is part of
            continue
        part = room.startswith(f"{here}.")  # a part of this room, by its face
        assert part or ROOMS.index(room) < ROOMS.index(here), f"{here} imports {room}, which comes after it"
        assert module == room or module in BY_PATH, f"from emsam_jax.{module} import {name} goes past {room}'s face"
    libraries = {module.split(".")[0] for module, _ in imports_of(path)}
    assert here == "porting" or not libraries & {"torch", "sam2"}
    if here.split(".")[0] in WITHOUT_JAX:
        assert not libraries & {"jax", "flax", "optax", "orbax", "grain"}


def test_a_face_exports_what_others_import_and_nothing_else():
    contract = {"load_image_encoder", "affinities_from_labels", "create_volume", "write_volume", "ideal_affinities"}
    shown = re.findall(r"^from emsam_jax\.([\w.]+) import (.+)$", (ROOT / "docs/python_api.md").read_text(), re.M)
    wanted = defaultdict(set)
    for room, names in shown:
        wanted[room] |= {name.strip() for name in names.split(",")}
    for path in (*MODULES, PACKAGE / "__init__.py", *SCRIPTS):
        here = room_of(module_name(path)) if path in MODULES else ""
        for module, name in ours(path):
            if module in ROOMS and not f"{here}.".startswith(f"{module}."):
                wanted[module].add(name)
    for room in ROOMS:
        face = PACKAGE.joinpath(*room.split("."), "__init__.py")
        if face.exists():
            exported = {name for module, name in ours(face) if f"{module}.".startswith(f"{room}.")}
            unused = exported - wanted[room] - contract
            assert not unused, f"emsam_jax.{room} exports what no other room imports: {sorted(unused)}"


def test_the_architecture_page_draws_the_rooms():
    lines = ["emsam_jax/"]
    for room in (room for room in ROOMS if "." not in room):
        for name in (room, *(part for part in ROOMS if part.startswith(f"{room}."))):
            folder = PACKAGE.joinpath(*name.split("."))
            file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
            about = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
            depth, label = name.count(".") + 1, f"{name.split('.')[-1]}{'/' if folder.is_dir() else '.py'}"
            lines.append(f"{'  ' * depth}{label:<{22 - 2 * depth}}{about}")
    (tree,) = re.findall(r"^```text\n(.+?)^```", (ROOT / "docs/architecture.md").read_text(), re.M | re.S)
    assert tree.splitlines() == lines


def test_no_name_stands_for_two_things():
    files = [path.stem for path in MODULES if path.parent.name != "configs" and not path.stem.startswith("__")]
    classes = [
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [name for name, count in Counter(files).items() if count > 1] == []
    assert [name for name, count in Counter(classes).items() if count > 1] == []


def test_files_stay_small():
    lengths = {module_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_the_ground_floor_is_light():
    heavy = ["jax", "flax", "optax", "orbax", "grain", "torch", "dask", "distributed", "matplotlib", "scipy", "waterz"]
    code = (
        f"import sys, emsam_jax.commands, emsam_jax.volumes; print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"[]\n"
    code = "import sys, emsam_jax.commands, emsam_jax.config; print('tensorstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False\n"
