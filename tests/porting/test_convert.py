"""What the converter takes, refuses and leaves behind."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.model import flat_state, load_image_encoder
from emsam_jax.porting import convert, converter

pytestmark = pytest.mark.usefixtures("torch")

TOOL = Path(__file__).parents[2] / "convert" / "sam2_to_flax.py"


def run_tool(*flags: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, TOOL, *map(str, flags)], check=False, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("verify", [[], pytest.param(["--verify"], marks=pytest.mark.slow)], ids=str)
def test_command_line_converts_verifies_and_tells(tiny, tmp_path, verify):
    _, checkpoint = tiny
    done = run_tool(f"--checkpoint={checkpoint}", f"--out={tmp_path}/flax", *verify, "--dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    assert ("the same numbers as PyTorch" in done.stdout) is bool(verify)
    assert "sam_mask_decoder 131" in done.stdout
    assert not done.stderr, "a run that goes well says nothing on stderr"
    facts = json.loads((tmp_path / "flax" / "encoder.json").read_text())
    assert (facts["size"], facts["tensors"], facts["parameters"]) == ("tiny", 162, 27_219_136)
    assert facts["source"] == {"file": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    weight = flat_state(load_image_encoder(tmp_path / "flax"))["trunk.blocks.0.attn.qkv.kernel"][...]
    assert (weight == weight.astype("bfloat16").astype("float32")).all()

    with pytest.raises(UserError, match="exists already"):
        convert(checkpoint, tmp_path / "flax")


@pytest.mark.slow
def test_command_line_asks_for_what_is_missing():
    for flags, answer in (
        (["--out=x"], "one of --checkpoint=FILE and --download=NAME"),
        (["--checkpoint=x"], "--out=FOLDER"),
        (["--checkpoint=nowhere.pt", "--out=x"], "no such file"),
        (["x.pt"], "--name=value"),
    ):
        done = run_tool(*flags)
        assert done.returncode != 0
        assert done.stderr.startswith("sam2_to_flax: ")
        assert answer in done.stderr


def test_without_torch_one_sentence(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    done = run_tool("--checkpoint=x.pt", "--out=x", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode != 0
    assert done.stderr.startswith("sam2_to_flax: Converting reads the checkpoint with PyTorch, which is not installed")


@pytest.mark.slow
def test_killed_at_any_moment_it_leaves_nothing_that_loads(tiny, tmp_path):
    _, checkpoint = tiny
    out, partial = tmp_path / "flax", tmp_path / "flax.partial"
    for wait_s in (0.0, 0.1, 0.25):
        process = subprocess.Popen([sys.executable, TOOL, f"--checkpoint={checkpoint}", f"--out={out}", "--verify"])
        while not partial.exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(wait_s)  # --verify runs for seconds before the folder is put in place
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert partial.exists()
        with pytest.raises(UserError):
            load_image_encoder(out)
    convert(checkpoint, out)
    assert not partial.exists()
    assert load_image_encoder(out).trunk.config.embed_dim == 96


@pytest.mark.slow
def test_overwriting_replaces_a_converted_encoder_and_nothing_else(tiny, make_checkpoint, tmp_path):
    _, checkpoint = tiny
    convert(checkpoint, tmp_path / "flax", dtype="bfloat16")
    convert(make_checkpoint("small", "sam2")[1], tmp_path / "flax", overwrite=True)
    assert len(load_image_encoder(tmp_path / "flax").trunk.blocks) == 16
    (tmp_path / "precious").mkdir()
    with pytest.raises(UserError, match="leaves it alone"):
        convert(checkpoint, tmp_path / "precious", overwrite=True)


@pytest.mark.slow
def test_layouts_of_the_file_give_the_same_encoder(torch, tiny, tmp_path):
    from safetensors.torch import save_file

    model, checkpoint = tiny
    state = model.state_dict()
    torch.save(state, tmp_path / "bare.pt")
    torch.save(model.image_encoder.state_dict(), tmp_path / "encoder_only.pt")
    torch.save({"model": state}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / "m.safetensors")
    convert(checkpoint, tmp_path / "official")
    expected = {n: np.asarray(v[...]) for n, v in flat_state(load_image_encoder(tmp_path / "official")).items()}
    for file in ("bare.pt", "encoder_only.pt", "old.pt", "m.safetensors"):
        convert(tmp_path / file, tmp_path / f"{file}.flax")
        for name, leaf in flat_state(load_image_encoder(tmp_path / f"{file}.flax")).items():
            np.testing.assert_array_equal(leaf[...], expected[name])


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_code_in_a_checkpoint_is_not_run(torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, "zip.pt")
    Path("bare.pt").write_bytes(pickle.dumps(Evil()))
    for file in ("zip.pt", "bare.pt"):
        with pytest.raises(UserError, match="asks to run code"):
            convert(Path(file), Path("out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.pt", "zip.pt"]


def test_a_file_that_unpacks_to_more_than_it_holds(torch, tmp_path):
    """Compressed beside it, PyTorch would read it into 1000 times its memory."""
    torch.save({"model": {"a": torch.zeros(1 << 22)}}, tmp_path / "sound.pt")
    deflated = zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "sound.pt") as sound, deflated as bomb:
        for entry in sound.infolist():
            bomb.writestr(entry.filename, sound.read(entry))
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 16
    with pytest.raises(UserError, match=r"expected tensors as PyTorch stores them, uncompressed; found \d+ bytes"):
        convert(tmp_path / "bomb.pt", tmp_path / "out")


@pytest.mark.slow
def test_tensors_that_do_not_fit_are_named(torch, tiny, tmp_path):
    state = {name: tensor for name, tensor in tiny[0].state_dict().items() if name.startswith("image_encoder.")}
    qkv = "image_encoder.trunk.blocks.3.attn.qkv"

    def refusal(**changes) -> str:
        torch.save({"model": {**state, **changes}}, tmp_path / "faulty.pt")
        with pytest.raises(UserError) as raised:
            convert(tmp_path / "faulty.pt", tmp_path / "out")
        return str(raised.value)

    extra = {f"image_encoder.trunk.extra{i}.weight": torch.zeros(3) for i in range(7)}
    assert "7 unexpected: trunk.extra0.weight" in (said := refusal(**extra))
    assert "and 2 more" in said
    assert "expected (1152, 192), found (1152, 5)" in refusal(**{f"{qkv}.weight": torch.zeros(1152, 5)})
    assert "trunk.blocks.3.attn.qkv.bias among them" in refusal(**{f"{qkv}.bias": torch.full((1152,), np.nan)})
    del state[f"{qkv}.bias"]
    assert f"1 missing: {qkv}.bias" in refusal()
    assert [path.name for path in tmp_path.iterdir()] == ["faulty.pt"]


def test_other_models_are_recognised(torch, tmp_path):
    files = {
        "sam1": {"image_encoder.pos_embed": (1, 64, 64, 8), "image_encoder.blocks.0.attn.rel_pos_h": (27, 64)},
        "hf": {"vision_encoder.backbone.patch_embed.projection.weight": (144, 3, 7, 7)}
        | {f"vision_encoder.backbone.blocks.{i}.layer_norm1.weight": (144,) for i in range(48)},
        "resnet": {"conv1.weight": (64, 3, 7, 7)},
        "narrow": {"trunk.patch_embed.proj.weight": (64, 3, 7, 7), "trunk.blocks.0.norm1.weight": (64,)},
    }
    answers = {
        "sam1": "is a SAM1 checkpoint",
        "hf": r"sam2\.1_hiera_large\.pt",
        "resnet": "found conv1.weight",
        "narrow": "an encoder of 64 channels is none of SAM2's",
    }
    for name, shapes in files.items():
        torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match=answers[name]):
            convert(tmp_path / f"{name}.pt", tmp_path / "out")


@pytest.mark.slow
def test_files_that_cannot_be_read_are_told_apart(torch, tiny, tmp_path):
    from safetensors.torch import save_file

    whole = tiny[1].read_bytes()
    save_file({"a": torch.zeros(1000)}, tmp_path / "short.safetensors")
    files = {
        "cut.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "page.pt": b"<html>not found</html>",
        "short.safetensors": (tmp_path / "short.safetensors").read_bytes()[:500],
    }
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(UserError, match=r"cannot be read .*fetch it again"):
            convert(tmp_path / name, tmp_path / "out")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="found a list"):
        convert(tmp_path / "list.pt", tmp_path / "out")
    torch.save({"optimizer": {"lr": 1.0}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="a dictionary with 'optimizer'"):
        convert(tmp_path / "other.pt", tmp_path / "out")


@pytest.mark.slow
def test_verification_refuses_an_encoder_that_computes_something_else(tiny, tmp_path, monkeypatch):
    """A transposed attention projection has the right shape and the wrong numbers."""
    to_jax = converter.to_jax
    monkeypatch.setattr(
        converter, "to_jax", lambda t, order, dtype: to_jax(t.T if t.shape == (384, 384) else t, order, dtype)
    )
    compare = converter.compare_with_official

    def with_the_files_own_weights(written, size, params, matched):
        state = tiny[0].image_encoder.state_dict()
        own = {ours: to_jax(state[theirs], order, "float32") for ours, (theirs, order) in matched.items()}
        return compare(written, size, own, matched)

    monkeypatch.setattr(converter, "compare_with_official", with_the_files_own_weights)
    with pytest.raises(UserError, match="Nothing was written"):
        convert(tiny[1], tmp_path / "flax", verify=True)
    assert not list(tmp_path.iterdir())
