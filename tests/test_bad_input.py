"""What users get wrong, through the command line: one sentence that helps, the exit code, nothing half-written."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hilum.cli import main
from hilum.scans import write_scan
from making_dicom import body, make_series
from threshold_model import blocks, scan_of, threshold_model

SHAPE = (24, 20, 16)


def ct(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Noise that passes for CT: air to bone."""
    return np.random.default_rng(0).integers(-1000, 1200, shape).astype(np.int16)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def empty(folder: Path) -> Path:
    (folder / "empty.nii.gz").write_bytes(b"")
    return folder / "empty.nii.gz"


def cut_off(folder: Path) -> Path:
    whole = nifti(folder / "whole.nii.gz", ct()).read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    return folder / "cut.nii.gz"


def text(folder: Path) -> Path:
    (folder / "text.nii.gz").write_text("dear radiologist")
    return folder / "text.nii.gz"


def nan_voxels(folder: Path) -> Path:
    array = ct().astype(np.float32)
    array[1, 2, 3] = np.nan
    return nifti(folder / "nan.nii.gz", array)


def two_axes(folder: Path) -> Path:
    return nifti(folder / "flat.nii.gz", ct((24, 20)))


def four_axes(folder: Path) -> Path:
    return nifti(folder / "series.nii.gz", ct((24, 20, 16, 2)))


def with_pixdim(folder: Path, value: float) -> Path:
    path = nifti(folder / "spacing.nii", ct())
    raw = bytearray(path.read_bytes())
    raw[80:84] = np.float32(value).tobytes()  # pixdim[1]
    raw[252:256] = bytes(4)  # no qform, no sform: pixdim is all there is
    path.write_bytes(raw)
    return path


def zero_spacing(folder: Path) -> Path:
    return with_pixdim(folder, 0.0)


def negative_spacing(folder: Path) -> Path:
    return with_pixdim(folder, -2.0)


def label_map(folder: Path) -> Path:
    array = np.zeros(SHAPE, np.uint8)
    array[5:10, 5:10, 5:10] = 1
    return nifti(folder / "labels.nii.gz", array)


def no_scans(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    (folder / "nothing" / "notes.txt").write_text("none here")
    return folder / "nothing"


def missing_slice(folder: Path) -> Path:
    make_series(folder / "series", body())
    sorted((folder / "series").iterdir())[3].unlink()
    return folder / "series"


SCANS: list[tuple[Callable[[Path], Path], str]] = [
    (empty, "empty"),
    (cut_off, "cut off|ends|truncated|damaged"),
    (text, "gzip"),
    (nan_voxels, "NaN"),
    (two_axes, "2 axes|2-D|two axes"),
    (four_axes, "4 axes|4-D|four"),
    (zero_spacing, "spacing"),
    (negative_spacing, "spacing"),
    (label_map, "label map|HU"),
    (no_scans, "no scan|holds no"),
    (missing_slice, "missing"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return threshold_model(tmp_path_factory.mktemp("models") / "thresholds").folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return captured.out + captured.err


@pytest.mark.parametrize(("make", "expected"), SCANS, ids=[make.__name__ for make, _ in SCANS])
def test_a_bad_scan_is_one_sentence_that_names_it(
    make: Callable[[Path], Path], expected: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    (tmp_path / "in").mkdir()
    bad = make(tmp_path / "in")
    code = main(["segment", str(bad), "--model", str(model), "--out", str(tmp_path / "out"), "--quiet"])
    text = said(capsys)
    assert code in (1, 2)
    assert re.search(expected, text), text
    assert bad.name in text
    assert not list((tmp_path / "out").rglob("labels.nii.gz")) if (tmp_path / "out").exists() else True


def pair(folder: Path, image: np.ndarray, labels: np.ndarray, labels_affine: np.ndarray | None = None) -> Path:
    nifti(folder / "images" / "a.nii.gz", image)
    nifti(folder / "labels" / "a.nii.gz", labels, labels_affine)
    return folder


def labels_like(dtype: str = "uint8", value: float = 1) -> np.ndarray:
    array = np.zeros(SHAPE, dtype)
    array[5:10, 5:10, 5:10] = value
    return array


MOVED = np.diag([1.0, 1, 1, 1])
MOVED[0, 3] = 25
PAIRS = {
    "shape": (lambda f: pair(f, ct((24, 20, 17)), labels_like()), "shape"),
    "affine": (lambda f: pair(f, ct(), labels_like(), MOVED), "25.0 mm away"),
    "unknown label": (lambda f: pair(f, ct(), labels_like(value=9)), "does not know: 9"),
    "float labels": (lambda f: pair(f, ct(), labels_like("float32", 0.5)), "no integers"),
    "nan image": (lambda f: pair(f, np.full(SHAPE, np.nan, "float32"), labels_like()), "NaN"),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_bad_training_pairs_are_named_before_training(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = PAIRS[kind]
    folder = make(tmp_path / "data")
    words = ["train", "default", "--data", f"folder={folder}", "--set", "labels=kits", "--fold", "all"]
    words += ["--out", str(tmp_path / "run")]
    code = main([*words, "--device", "cpu", "--quiet"])
    text = said(capsys)
    assert code == 1 and expected in text and "a.nii.gz" in text, text
    assert not (tmp_path / "run" / "model").exists()


def test_a_misspelt_key_names_the_right_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.toml").write_text("[training]\nlerning_rate = 0.1\n")
    assert main(["train", str(tmp_path / "my.toml"), "--out", str(tmp_path / "run")]) == 2
    assert "did you mean 'training.learning_rate'" in said(capsys)


def test_a_damaged_weight_file_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "model")
    weights = next((tmp_path / "model").glob("*.safetensors"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 255
    weights.write_bytes(raw)
    scan = nifti(tmp_path / "ct.nii.gz", ct())
    code = main(["segment", str(scan), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    text = said(capsys)
    assert code == 1 and weights.name in text and "damaged" in text
    assert not (tmp_path / "out").exists()


@pytest.fixture
def good_scan(tmp_path: Path) -> Path:
    write_scan(tmp_path / "good.nii.gz", scan_of(blocks((12, 24, 24), 1), (2, 2, 2), "LPS"))
    return tmp_path / "good.nii.gz"


def test_a_folder_one_may_not_write_to(
    good_scan: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "locked"
    out.mkdir(mode=0o555)
    if os.geteuid() == 0:
        # everything is imported and read as root once; the second call, as nobody, only finds the folder closed
        main(["segment", str(good_scan), "--model", str(model), "--out", str(tmp_path / "warm"), "--quiet"])
        for folder in (tmp_path, *tmp_path.parents[:3], model, model.parent):
            folder.chmod(folder.stat().st_mode | 0o055)
        os.seteuid(65534)
    try:
        code = main(["segment", str(good_scan), "--model", str(model), "--out", str(out), "--quiet"])
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    text = said(capsys)
    assert code == 1 and "no permission to write" in text and "locked" in text, text
    assert not list(out.iterdir())


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    call = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(call, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here (needs root)")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_nothing_half_written(
    good_scan: Path, model: Path, tiny_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["segment", str(good_scan), "--model", str(model), "--out", str(tiny_disk / "out"), "--quiet"])
    text = said(capsys)
    assert code == 1 and "the disk is full" in text, text
    for file in tiny_disk.rglob("*.nii.gz"):
        with gzip.open(file) as whole:  # what is there is whole
            whole.read()
    assert not list(tiny_disk.rglob(".part-*"))


def test_one_bad_scan_does_not_stop_the_others(
    good_scan: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = text(tmp_path)
    out = tmp_path / "out"
    assert main(["segment", str(bad), str(good_scan), "--model", str(model), "--out", str(out), "--quiet"]) == 1
    assert "1 done" in (answer := said(capsys)) and "1 failed" in answer and "text.nii.gz" in answer
    assert (out / "good" / "labels.nii.gz").is_file() and (out / "good" / "report.html").is_file()
