"""Weights lie on the disk once and in memory once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hilum.errors import ModelError
from hilum.inference.predict import Predictor
from hilum.model import load_model
from hilum.model.tensors import StoredTensors
from test_model import save, spec, weights

TENSORS = {
    "a": torch.arange(24, dtype=torch.float32).view(2, 3, 4),
    "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
    "count": torch.tensor(7),
    "empty": torch.zeros((0, 3)),
    "flags": torch.tensor([True, False]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"by": "a test"})
    return tmp_path / "w.safetensors"


def test_every_tensor_comes_back(file: Path) -> None:
    stored = StoredTensors(file)
    assert set(stored) == set(TENSORS) and len(stored) == len(TENSORS)
    for name, wanted in TENSORS.items():
        assert torch.equal(stored[name], wanted.float() if wanted.is_floating_point() else wanted), name
        assert stored.bare()[name].shape == wanted.shape
    assert stored["half"].dtype is torch.float32 and stored["count"].dtype is torch.int64


def test_each_reading_is_a_copy_of_its_own(file: Path) -> None:
    stored = StoredTensors(file)
    stored["a"].zero_()
    assert torch.equal(stored["a"], TENSORS["a"])


def test_numbers_left_in_the_file(tmp_path: Path, file: Path) -> None:
    big = {**TENSORS, "big": torch.arange(10_000.0), "other": torch.arange(9_000.0)}
    save_file(big, tmp_path / "big.safetensors")
    stored, foreign = StoredTensors(tmp_path / "big.safetensors"), torch.ones(5000)
    lent = {name: stored.in_file(name) for name in stored}
    for gone in (None, lent["big"], lent["other"][100:5000], foreign, lent["a"]):
        stored.let_go(gone)
        assert all(torch.equal(lent[name], stored[name]) and lent[name].dtype == stored[name].dtype for name in stored)
    assert torch.equal(foreign, torch.ones(5000))
    StoredTensors(file).let_go(foreign)  # nothing was lent
    (tmp_path / "big.safetensors").unlink()
    stored.let_go()
    assert torch.equal(lent["big"], big["big"])


def test_a_file_that_was_replaced_meanwhile(file: Path) -> None:
    stored = StoredTensors(file)
    save_file({"a": torch.ones(2, 3, 4)}, file.with_name("other"))
    file.with_name("other").replace(file)
    assert torch.equal(stored["a"], TENSORS["a"])
    shutil.rmtree(file.parent)
    assert torch.equal(stored["a"], TENSORS["a"])


@pytest.mark.parametrize(
    "damage", [b"", b"\x00" * 4, b"\xff" * 16, b"\x02" + b"\x00" * 7 + b"[]", b"\x09" + b"\x00" * 7 + b'{"a": {}}']
)
def test_files_that_are_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "bad").write_bytes(damage)
    with pytest.raises(ModelError, match="cannot be read"):
        StoredTensors(tmp_path / "bad")


def test_a_file_cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])
    stored = StoredTensors(file)
    with pytest.raises(ModelError, match="ends too early"):
        dict(stored)


def test_a_bare_network_has_shapes_and_draws_nothing() -> None:
    state = torch.get_rng_state()
    bare = spec().bare().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: x.shape for name, x in bare.items()} == {name: x.shape for name, x in weights().items()}
    assert all(x.device.type == "meta" for x in bare.values())


def test_networks_share_nothing_with_each_other(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "m"))
    first, second = model.network(), model.network()
    name, tensor = next(iter(first.named_parameters()))
    with torch.no_grad():
        tensor.zero_()
    assert torch.equal(dict(second.named_parameters())[name], weights()[name])


def test_on_a_processor_auto_is_fp32(tmp_path: Path) -> None:
    model = load_model(save(tmp_path / "m"))
    assert Predictor(model, "cpu").precision == "fp32"
    assert Predictor(model, "cpu", precision="bf16").precision == "bf16"


def test_a_model_is_opened_without_pytorchs_compiler(tmp_path: Path) -> None:
    """It would take 70 MB and seconds."""
    save(tmp_path / "m")
    code = (
        "import sys; from hilum.model import load_model; from hilum.inference.predict import Predictor\n"
        "from hilum.inference.memory import network_bytes\n"
        "assert network_bytes(Predictor(load_model(sys.argv[1]), 'cpu')) > 0\n"
        "assert 'sympy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=True)
