"""What goes wrong with a training, by the command line: one sentence each, an exit code, and nothing lost."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hilum import device as devices
from hilum.cli import main
from hilum.config import to_toml
from hilum.errors import RecipeError, TrainingError
from hilum.model import NetworkSpec, load_model
from hilum.training import fitting
from hilum.training.checkpoint import checkpoint_facts
from hilum.training.loop import train
from hilum.training.trainer import Trainer
from making_runs import losses, make_cases, one_thread, recipe
from threshold_model import make_plan

__all__ = ["one_thread"]  # a fixture that works by itself


TWO_D = ("prepare.dims=2", "prepare.patch=[16, 16]", "prepare.spacing_mm=[1, 1]")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cubes")
    make_cases(folder)
    return folder


def run(
    data: Path, out: Path, capsys: pytest.CaptureFixture[str], *changes: str, device: str = "cpu"
) -> tuple[int, str]:
    """The exit code of ``hilum train`` and what it said."""
    file = out.with_suffix(".toml")
    file.write_text(to_toml(recipe(steps=2, validation_cases=0)))
    words = ["train", str(file), "--data", f"folder={data}", "--out", str(out), "--device", device, "--quiet"]
    code = main([*words, *(word for change in changes for word in ("--set", change))])
    said = capsys.readouterr()
    text = said.out + said.err
    assert "Traceback" not in text
    return code, text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["prepare.dims=2"], r"prepare.patch = \[16, 16, 16\] in 2D"),
        (["prepare.context=2"], "context"),
        (["locator.spacing_mm=4", "cascade.use=always"], "a cascade and a locator"),
        (["network.head=regions", "training.loss=boundary"], "no loss 'boundary' of regions"),
        (
            ["network.name=unet3d", "prepare.dims=2", "prepare.patch=[16, 16]", "prepare.spacing_mm=[1, 1]"],
            "defined in 3D",
        ),
        (["prepare.window_hu=[100, -100]", "prepare.normalisation=window"], "window"),
        (["training.patience=3", "training.validation_cases=0"], "validation_cases: .*patience = 3"),
        (["training.keep=best", "training.validation_cases=0"], "validation_cases: keep = 'best'"),
        (["prepare.patch=[15, 16, 16]"], r"the nearest that works is \[14, 16, 16\]"),
    ],
)
def test_a_recipe_that_contradicts_itself(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: list[str], said: str
) -> None:
    code, text = run(data, tmp_path / "run", capsys, *changes)
    assert code in (1, 2)
    assert re.search(said, text), text
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_patch_larger_than_memory(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused before any case is prepared, and not by the system's killing the process."""
    code, text = run(data, tmp_path / "run", capsys, "prepare.patch=[4096, 4096, 4096]")
    assert code == 1 and "patches of [4096, 4096, 4096] voxels needs at least" in text and "prepare.patch" in text
    assert not (tmp_path / "run" / "prepared").exists()


def test_the_memory_of_a_step_is_a_bound_from_below(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"features": [4, 8], "kernels": [[3] * 3] * 2, "strides": [[1] * 3, [2] * 3], "convs_per_stage": [2, 2]}
    spec = NetworkSpec("plain_unet", options, 1, 2, 3)
    plan = replace(make_plan((16, 16, 16), (1.0, 1.0, 1.0)), batch=2)
    # at the least both convolutions of both resolutions and the decoder's keep their input
    voxels = 2 * 16**3
    least = 4 * voxels * (1 + 4 + 4 / 8 + 8 / 8 + 8 + 4)
    for have, refused in ((least, True), (40 * least, False)):
        monkeypatch.setattr(devices, "memory_bytes", lambda *_, have=have: int(have))
        if refused:
            with pytest.raises(TrainingError, match="needs at least"):
                fitting.check_memory(spec, plan, torch.device("cpu"), "fp32")
        else:
            fitting.check_memory(spec, plan, torch.device("cpu"), "fp32")
    monkeypatch.setattr(devices, "memory_bytes", lambda *_: None)  # the system does not tell
    fitting.check_memory(spec, plan, torch.device("cpu"), "fp32")


def test_memory_that_ends_in_the_middle_is_said(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(self: Trainer, batch: object) -> torch.Tensor:
        return torch.empty(2**56)  # what PyTorch says of it is what it says on any CPU

    monkeypatch.setattr(Trainer, "_forward", greedy)
    code, text = run(data, tmp_path / "run", capsys)
    assert code == 1 and "does not suffice for a training step" in text and "prepare.patch" in text


def test_a_class_that_never_occurs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import nibabel

    folder = tmp_path / "data"
    dataset = make_cases(folder)
    for case in dataset.cases:  # nobody has a tumour
        image = nibabel.load(str(case.labels))
        nibabel.save(
            nibabel.Nifti1Image(np.minimum(np.asarray(image.dataobj), 1).astype(np.uint8), image.affine), case.labels
        )
    for number, changes in enumerate(
        (["training.loss=weighted_ce"], ["patches.sampling=lesion", "patches.cases=presence"], ["network.head=regions"])
    ):
        out = tmp_path / f"run{number}"
        said: list[str] = []
        file = tmp_path / "r.toml"
        file.write_text(to_toml(recipe(steps=2, validation_cases=0)))
        words = ["train", str(file), "--data", f"folder={folder}", "--out", str(out), "--device", "cpu"]
        assert main([*words, *(word for change in changes for word in ("--set", change))]) == 0
        said = "".join(capsys.readouterr()).splitlines()
        assert any("No training case holds tumour: the model will never predict it" in line for line in said)
        assert all(np.isfinite(losses(out))) and load_model(out).spec.out_channels in (2, 3)
    for case in dataset.cases:  # nobody has anything
        image = nibabel.load(str(case.labels))
        nibabel.save(nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), case.labels)
    code, text = run(folder, tmp_path / "none", capsys)
    assert code == 1 and ("no training case holds a voxel of" in text or "label" in text), text


def test_a_nan_image_is_named_before_training_and_the_good_cases_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import nibabel

    folder = tmp_path / "data"
    dataset = make_cases(folder)
    image = nibabel.load(str(dataset.cases[1].image))
    spoilt = np.asarray(image.dataobj).astype(np.float32)
    spoilt[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(spoilt, image.affine), dataset.cases[1].image)
    code, text = run(folder, tmp_path / "run", capsys)
    assert code == 1 and "case1" in text and "NaN" in text and "1 of 3 cases cannot be used" in text


def test_a_prepared_case_that_is_damaged_is_prepared_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(data, out, capsys)[0] == 0
    damaged = next((out / "prepared").glob("case1.*.image.npy"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:200])
    assert run(data, out, capsys, "training.steps=3")[0] == 0
    assert damaged.read_bytes() == whole


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_gpu_that_is_asked_for_and_absent(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(data, tmp_path / "run", capsys, device="cuda")
    assert code == 2 and "sees no NVIDIA GPU" in text and "--device cpu" in text
    assert not (tmp_path / "run").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(call, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here (needs root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_is_full_when_a_checkpoint_is_due(
    data: Path, small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real one: the last checkpoint stands, and with room again the same command goes on."""
    out = small_disk / "run"
    dataset = make_cases(tmp_path / "same")
    asked = recipe(steps=3, validation_cases=0, checkpoint_minutes=0.0)
    train(recipe(steps=1, validation_cases=0, checkpoint_minutes=0.0), dataset, out, device="cpu")
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 30_000))
    before = checkpoint_facts(out / "checkpoint")
    with pytest.raises(Exception, match="the disk is full"):
        train(asked, dataset, out, device="cpu")
    assert checkpoint_facts(out / "checkpoint") == before
    ballast.unlink()
    assert train(asked, dataset, out, device="cpu").steps == 3


def test_weights_are_not_chosen_by_cases_that_nobody_holds_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="fold 'all', which holds no case out"):
        train(recipe(keep="best"), make_cases(tmp_path / "d"), tmp_path / "run", fold="all", device="cpu")


def test_a_warm_up_longer_than_the_run_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.toml"
    file.write_text(to_toml(recipe(steps=2, validation_cases=0, warmup_steps=9)))
    out = str(tmp_path / "run")
    assert main(["train", str(file), "--data", f"folder={data}", "--out", out, "--device", "cpu"]) == 0
    assert "still warming up when the run ends after 2 steps" in "".join(capsys.readouterr())
