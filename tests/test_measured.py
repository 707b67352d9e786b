"""Measurements kept beside the scores: used when nothing changed, and only then."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hilum.judge import measured
from hilum.judge.evaluate import evaluate, evaluate_pairs
from hilum.judge.measured import FOLDER, Shelf
from hilum.judge.pair import Pair


def write(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 1.0, 1.0, 1.0]) if affine is None else affine), path)
    return path


def labels(shift: int = 0) -> np.ndarray:
    array = np.zeros((10, 16, 16), np.uint8)
    array[2:8, 3:13, 3:13] = 1
    array[3:6, 5 + shift : 9 + shift, 5:9] = 2
    array[7, 10:12, 10 + shift // 2] = 3
    return array


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for i in range(2):
        write(tmp_path / "truth" / f"case_{i}.nii.gz", labels())
        write(tmp_path / "prediction" / f"case_{i}.nii.gz", labels(i + 1))
    return tmp_path / "truth", tmp_path / "prediction"


def near(value: float | None, want: float | None) -> bool:
    """Equal but for the order of sums."""
    return value is want is None or value == pytest.approx(want, rel=1e-12)


def never(*_: object, **__: object) -> None:
    raise AssertionError("measured again")


def forbid(patch: pytest.MonkeyPatch) -> None:
    """No file is opened, no array taken, nothing measured."""
    patch.setattr(measured, "read_volume", never)
    for name in ("surfel_distances", "voxel_distances", "find_lesions"):
        patch.setattr(f"hilum.judge.pair.{name}", never)
    patch.setattr("hilum.judge.lits.scan_order", never)
    patch.setattr(Pair, "truth", property(never))


def test_what_evaluations_elsewhere_measured_is_used_where_they_are_named(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = {f"case_{i}": tuple(folder / f"case_{i}.nii.gz" for folder in folders) for i in range(2)}
    runs = [tmp_path / "runs" / f"fold_{i}" / "validation" for i in range(2)]
    for i, run in enumerate(runs):
        evaluate_pairs({f"case_{i}": pairs[f"case_{i}"]}, "plain", run)
    want = evaluate_pairs(pairs, "plain", tmp_path / "a" / "anew")
    forbid(monkeypatch)
    found = evaluate_pairs(pairs, "plain", tmp_path / "b" / "together", measured=runs)
    assert found["mean"] == want["mean"] and not found["failures"]
    with pytest.raises(AssertionError, match="measured again"):
        evaluate_pairs(pairs, "plain", tmp_path / "c" / "unknown")


@pytest.mark.parametrize("protocol", ["plain", "kits23", "lits", "lits-corrected", "nnunet", "msd", "kits19"])
def test_a_second_run_measures_nothing_and_says_the_same(
    folders: tuple[Path, Path], tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(*folders, protocol, tmp_path / "out")
    fresh = evaluate(*folders, protocol, tmp_path / "elsewhere" / "out", keep=False)
    assert not (tmp_path / "elsewhere" / "out" / FOLDER).exists()
    forbid(monkeypatch)
    assert evaluate(*folders, protocol, tmp_path / "out") == first
    assert evaluate(*folders, protocol, tmp_path / "beside") == first  # another evaluation's measurements
    for name, regions in fresh["cases"].items():
        for region, metrics in regions.items():
            for metric, value in metrics.items():
                assert near(first["cases"][name][region][metric], value), (region, metric)


def test_another_protocol_measures_nothing_again(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = {name: evaluate(*folders, name, tmp_path / "a" / name, keep=False) for name in ("kits23", "kits19", "msd")}
    evaluate(*folders, "plain", tmp_path / "out")
    forbid(monkeypatch)
    for name in ("kits23", "kits19"):
        got = evaluate(*folders, name, tmp_path / "out")
        for case, regions in want[name]["cases"].items():
            for region, metrics in regions.items():
                for metric, value in metrics.items():
                    assert near(got["cases"][case][region][metric], value)


def test_what_several_evaluations_measured_comes_together(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = {name: evaluate(*folders, name, tmp_path / name) for name in ("kits23", "plain", "lits")}
    forbid(monkeypatch)
    for name, scores in want.items():
        assert evaluate(*folders, name, tmp_path / f"again_{name}")["cases"] == scores["cases"]


@pytest.mark.parametrize("change", ["prediction", "header", "code", "damage"])
def test_what_changed_is_measured_anew(
    folders: tuple[Path, Path], tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = evaluate(*folders, "kits23", tmp_path / "out")["cases"]["case_0"]["tumor"]
    entries = sorted((tmp_path / "out" / FOLDER).iterdir())
    assert len(entries) == 2
    file = folders[1] / "case_0.nii.gz"
    if change == "prediction":
        write(file, labels(0))
    elif change == "header":
        write(file, labels(1), np.diag([2.0, 1.2, 1.0, 1.0]))
    elif change == "code":
        monkeypatch.setattr(measured, "measuring_code", lambda: "another code" * 3)
    else:
        for entry in entries:
            entry.write_bytes(entry.read_bytes()[:200])
    after = evaluate(*folders, "kits23", tmp_path / "out")["cases"]["case_0"]["tumor"]
    assert (after == before) is (change in ("code", "damage"))
    fresh = evaluate(*folders, "kits23", tmp_path / "new" / "out", keep=False)["cases"]["case_0"]["tumor"]
    assert all(near(after[metric], value) for metric, value in fresh.items())
    if change != "damage":
        assert len(list((tmp_path / "out" / FOLDER).iterdir())) > 2


def test_axes_in_another_order_have_an_entry_of_their_own(tmp_path: Path) -> None:
    truth, prediction = write(tmp_path / "t" / "a.nii.gz", labels()), tmp_path / "p" / "a.nii.gz"
    turned = np.ascontiguousarray(labels().transpose(2, 1, 0)[:, ::-1])
    write(prediction, turned, np.array([[0, 0, 2.0, 0], [0, -1, 0, 15], [1, 0, 0, 0], [0, 0, 0, 1]]))
    for _ in range(2):
        shelf = Shelf(tmp_path / "out")
        ready = shelf.ready(truth, prediction, same_grid=True)
        assert ready.pair.counts((2,)).fp == 0
        ready.pair.region((2,)).surfels()
        shelf.keep(ready)
    assert [path.name.endswith("-turned.npz") for path in (tmp_path / "out" / FOLDER).iterdir()] == [True]
    assert ready.pair.memo.added == 0


def test_a_folder_that_cannot_be_written_to_keeps_nothing(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shelf = Shelf(tmp_path / "file")
    ready = shelf.ready(folders[0] / "case_0.nii.gz", folders[1] / "case_0.nii.gz", False)
    ready.pair.region((2,)).surfels()
    shelf.keep(ready)
    assert (tmp_path / "file").is_file()
