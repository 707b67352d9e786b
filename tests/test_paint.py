"""CT painted around label maps: labels untouched, body in place, bad maps named, runs resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.cli import main
from hilum.datasets import open_dataset
from hilum.errors import DatasetError, LabelError, OutputError, UsageError
from hilum.labels import SCHEMES
from hilum.phantom import make_case
from hilum.phantom.around import survey
from hilum.phantom.fitting import fit_body
from hilum.phantom.paint import PaintedCase, paint_around
from hilum.phantom.painting import paint_set
from hilum.scans import read_labels, read_scan, write_labels
from hilum.volume import Volume

REAL = Path("../shared/data/kits23_labels")


@pytest.fixture(scope="module")
def labels() -> Volume:
    """A phantom's labels as KiTS lists them."""
    made = make_case(4, small=True, shape=(64, 56, 36), spacing_mm=(5.8, 5.8, 5.0)).labels.oriented("IPL")
    affine = np.array([[0, 0, -5.8, 0], [0, -5.8, 0, 0], [-5.0, 0, 0, 0], [0, 0, 0, 1.0]])
    return Volume(made.array, affine, "labels")


@pytest.fixture(scope="module")
def painted(labels: Volume) -> PaintedCase:
    return paint_around(labels, 5, phase="nephrographic")


def test_the_ct_lies_on_the_labels(labels: Volume, painted: PaintedCase) -> None:
    assert painted.ct.grid.same_as(labels.grid) and painted.ct.array.dtype == np.int16
    assert painted.facts["sides"] == ["right", "left"] and painted.facts["phase"] == "nephrographic"


def test_each_label_has_its_tissue(labels: Volume, painted: PaintedCase) -> None:
    ct, maps = painted.ct.array, labels.array
    kidney, tumour = np.median(ct[maps == 1]), np.median(ct[maps == 2])
    assert 130 < kidney < 240 and 20 < tumour < kidney - 15
    ring = np.zeros_like(maps, bool)
    for axis in range(3):
        for step in (-1, 1):
            ring |= np.roll(maps > 0, step, axis=axis)
    ring &= maps == 0
    assert np.percentile(ct[ring], 25) < -30, "the kidneys lie in fat"


def test_the_body_is_a_body(labels: Volume, painted: PaintedCase) -> None:
    ct = painted.ct.oriented("SPL").array
    body = ct > -300
    assert 0.2 < body.mean() < 0.8 and not body[:, 0].any()
    bone = np.argwhere(ct > 350).mean(axis=0)
    kidneys = np.argwhere(labels.oriented("SPL").array > 0).mean(axis=0)
    assert bone[1] > kidneys[1], "the spine lies behind the kidneys"
    assert abs(bone[2] - kidneys[2]) < 12, "and between them"


def test_same_seed_same_voxels(labels: Volume, painted: PaintedCase) -> None:
    assert (paint_around(labels, 5, phase="nephrographic").ct.array == painted.ct.array).all()
    assert (paint_around(labels, 6, phase="nephrographic").ct.array != painted.ct.array).any()


@pytest.mark.parametrize("codes", ["LAS"])
def test_any_orientation_gives_the_same_picture(labels: Volume, painted: PaintedCase, codes: str) -> None:
    turned = paint_around(labels.oriented(codes), 5, phase="nephrographic").ct
    assert turned.codes == codes
    assert (turned.oriented("IPL").array == painted.ct.array).all()


def test_one_kidney_and_the_midline() -> None:
    labels = np.zeros((100, 80, 30), np.uint8)  # LPS: the patient's right has the low indices
    labels[18:32, 40:52, 8:22] = 1
    fit = fit_body(labels, (4.0, 4.0, 4.0), np.random.default_rng(0))
    assert list(fit.centres) == [1] and 40 < fit.centres[1][0] < 110
    middle = -(99 / 2) * 4.0
    assert abs(fit.origin_mm[0] - middle) < 60
    mirrored = fit_body(labels[::-1], (4.0, 4.0, 4.0), np.random.default_rng(0))
    assert list(mirrored.centres) == [-1]


def test_a_horseshoe_has_two_sides() -> None:
    labels = np.zeros((100, 80, 30), np.uint8)
    labels[30:70, 40:50, 10:16] = 1
    fit = fit_body(labels, (4.0, 4.0, 4.0), np.random.default_rng(0))
    assert sorted(fit.centres) == [-1, 1] and abs(fit.origin_mm[0] + 99 / 2 * 4.0) < 5


def test_one_piece_that_is_heavier_on_one_side_moves_no_spine() -> None:
    labels = np.zeros((100, 80, 30), np.uint8)
    labels[26:62, 40:50, 10:16] = 1  # from 96 mm right to 48 mm left of the middle
    labels[24:36, 36:54, 6:20] = 2
    fit = fit_body(labels, (4.0, 4.0, 4.0), np.random.default_rng(0))
    assert sorted(fit.centres) == [-1, 1] and abs(fit.origin_mm[0] + 99 / 2 * 4.0) < 5


def test_all_labelled_voxels_lie_inside_the_trunk() -> None:
    labels = np.zeros((100, 80, 30), np.uint8)
    labels[20:40, 26:56, 5:25] = 2  # a huge mass, 12 cm from front to back
    labels[62:75, 40:52, 8:22] = 1
    fit = fit_body(labels, (4.0, 4.0, 4.0), np.random.default_rng(0))
    points = (fit.grid.world(np.argwhere(labels > 0)) - np.array(fit.origin_mm)) / fit.torso.scale
    y = points[:, 1] + fit.torso.kyphosis * np.clip((points[:, 2] + 50) / 100, -2.2, 2.2) ** 2
    assert fit.torso.cavity(fit.torso.widened(points[:, 0], points[:, 2]), y)[0].max() < 0


def test_survey_measures_depths_and_hollows() -> None:
    labels = np.zeros((20, 60, 60), np.uint8)
    labels[4:16, 10:50, 10:50] = 1
    labels[4:16, 26:34, 18:50] = 0  # a narrow sinus, open to one side
    labels[8:12, 12:20, 40:48] = 2
    seen = survey(labels, (2.0, 1.0, 1.0), np.random.default_rng(0))
    assert (seen.labels == labels[seen.box]).all() and (seen.inner[seen.labels == 0] == 0).all()
    assert (seen.outer[seen.labels > 0] == 0).all() and len(seen.found) == 1
    whole = np.zeros(labels.shape, np.float32)
    whole[seen.box] = seen.sinus
    assert whole[10, 30, 25] > 0 and whole[10, 5, 5] == 0


def test_nothing_or_something_unknown_is_refused(labels: Volume) -> None:
    with pytest.raises(LabelError, match="no voxel is labelled"):
        paint_around(labels.with_array(np.zeros_like(labels.array)), 0)
    with pytest.raises(LabelError, match="does not know"):
        paint_around(labels.with_array(np.where(labels.array == 1, 9, 0).astype(np.uint8)), 0)
    with pytest.raises(UsageError):
        paint_around(labels, 0, phase="late")


def test_a_folder_goes_on_past_bad_ones_and_is_resumed(
    labels: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "labels", tmp_path / "painted"
    write_labels(source / "case_00001.nii.gz", labels)
    write_labels(source / "case_00002" / "segmentation.nii.gz", labels)
    write_labels(source / "case_00003.nii.gz", labels.with_array(np.zeros_like(labels.array)))
    (source / "case_00004.nii.gz").write_bytes(b"no gzip")
    words = ["data", "paint", "--labels", str(source), "--out", str(out), "--every", "2", "--workers", "1", "--quiet"]
    assert main(words) == 1
    text = capsys.readouterr().out
    assert "2 cases" in text and "case_00003" in text and "case_00004" in text
    case = open_dataset("phantom", out).cases[0]
    assert case.labels is not None
    scan, kept = read_scan(case.image), read_labels(case.labels, SCHEMES["kits"])
    assert scan.grid.same_as(kept.grid) and (kept.array == labels.array[:, ::2, ::2]).all()
    stamp = case.image.stat().st_mtime_ns
    assert main(words) == 1 and case.image.stat().st_mtime_ns == stamp
    with pytest.raises(OutputError, match="other options"):
        paint_set(source, out, seed=1, workers=1)


def test_the_copy_is_the_very_file(labels: Volume, tmp_path: Path) -> None:
    source = tmp_path / "labels" / "case_00001.nii.gz"
    write_labels(source, labels)
    made = paint_set(tmp_path / "labels", tmp_path / "out", workers=1)
    assert made.cases == ("case_00001",) and not made.failures
    assert (tmp_path / "out" / "case_00001" / "segmentation.nii.gz").read_bytes() == source.read_bytes()


def test_painted_organs_lie_around_the_labels(labels: Volume, painted: PaintedCase) -> None:
    made = paint_around(labels, 5, phase="nephrographic", organs=True)
    assert painted.organs is None and made.organs is not None and made.organs.grid.same_as(labels.grid)
    found, ct = made.organs.array, made.ct.array
    assert (ct == painted.ct.array).all(), "asking for them changes no voxel"
    assert (found[labels.array > 0] == labels.array[labels.array > 0]).all()
    assert set(np.unique(found[labels.array == 0])) == {0, 4, 6}
    centre = {v: np.argwhere(made.organs.oriented("SPL").array == v).mean(axis=0) for v in (4, 6)}
    assert centre[4][2] < 32 < centre[6][2], "liver right, spleen left"
    assert 90 < np.median(ct[found == 4]) < 140


def test_a_set_with_organs_is_opened_with_them(labels: Volume, tmp_path: Path) -> None:
    write_labels(tmp_path / "labels" / "case_00001.nii.gz", labels)
    words = ["--labels", str(tmp_path / "labels"), "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]
    assert main(["data", "paint", *words, "--organs"]) == 0
    opened = open_dataset("phantom", tmp_path / "out")
    assert opened.scheme == SCHEMES["trunk"] and opened.cases[0].labels == tmp_path / "out/case_00001/organs.nii.gz"
    kept = (tmp_path / "out" / "case_00001" / "segmentation.nii.gz").read_bytes()
    assert kept == (tmp_path / "labels" / "case_00001.nii.gz").read_bytes()
    with pytest.raises(OutputError, match="other options"):
        paint_set(tmp_path / "labels", tmp_path / "out", workers=1)


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        paint_set(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no label map"):
        paint_set(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError):
        paint_set(tmp_path / "empty", tmp_path / "out", every=0)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real KiTS23 label maps are not here")
@pytest.mark.parametrize("case", ["case_00576", "case_00194", "case_00151"])
def test_real_label_maps(case: str) -> None:
    """A transplant in the pelvis, a single kidney, one piece across the midline in 1059 slices."""
    whole = read_labels(REAL / f"{case}.nii.gz", SCHEMES["kits"])
    every = (max(1, round(8 / whole.spacing_mm[0])), 8, 8)
    affine = np.array(whole.affine)
    affine[:3, :3] = affine[:3, :3] * every
    labels = Volume(np.ascontiguousarray(whole.array[:: every[0], :: every[1], :: every[2]]), affine, case)
    made = paint_around(labels, 1, phase="arterial")
    assert made.ct.grid.same_as(labels.grid)
    assert np.median(made.ct.array[labels.array == 1]) > 90
