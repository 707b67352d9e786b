"""Real CT through the whole way. Quick: the shipped model on four real scans. Slow: one real scan learnt by heart.

Whether the demo model, which has seen synthetic CT only, finds anything on real patients is not what is tested: the way
through readers, geometry, network and writers is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hilum.cli import main
from hilum.files import read_json
from hilum.scans import read_scan, read_volume

REAL = Path(__file__).parents[2] / "shared" / "data"
SCANS = {
    "nifti": "real/totalsegmentator_ct/ct.nii.gz",
    "ircadb": "real/ircadb01_dicom",
    "cptac": "real/cptac_pda_dicom",
    "jpeg2000": "dicom/jpeg2000_ct",
}

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="shared/data is absent: no real CT to test on")


@pytest.mark.parametrize("kind", SCANS)
def test_the_shipped_model_labels_a_real_scan_on_its_own_grid(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = REAL / SCANS[kind]
    assert main(["segment", str(path), "--model", "demo", "--out", str(tmp_path), "--device", "cpu", "--quiet"]) == 0
    (case,) = (folder for folder in tmp_path.iterdir() if folder.is_dir())
    scan, labels = read_scan(path), read_volume(case / "labels.nii.gz")
    assert labels.array.dtype == np.uint8 and labels.shape == scan.shape
    assert labels.grid.distance_mm(scan.grid) < 1e-3
    page = (case / "report.html").read_text(encoding="utf-8")
    assert "not a medical device" in page and "synthetic" in page
    run = read_json(tmp_path / "run.json")
    assert run["cases"][case.name]["state"] == "done" and not run["failures"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_real_scan_can_be_learnt_by_heart(tmp_path: Path) -> None:
    """An overfit, nothing more: at most 5 minutes of training on 2 cores, then the same scan is segmented."""
    folder = REAL / "real" / "totalsegmentator_ct"
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["train", "overfit", "--data", f"folder={folder}", "--fold", "all", "--device", "cpu", "--quiet"]
    assert main([*words, "--out", str(run)]) == 0
    model = str(run / "model")
    assert main(["segment", str(folder / "ct.nii.gz"), "--model", model, "--out", str(out), "--quiet"]) == 0
    pair = ["--truth", str(folder / "labels.nii.gz"), "--prediction", str(out / "ct" / "labels.nii.gz")]
    words = ["evaluate", *pair, "--protocol", "plain", "--scheme", "abdomen", "--out", str(tmp_path / "scores")]
    assert main([*words, "--quiet"]) == 0
    mean = read_json(tmp_path / "scores" / "scores.json")["mean"]
    dice = {region: mean[region]["dice"]["value"] for region in mean}
    assert dice["liver"] >= 0.92 and min(dice["right_kidney"], dice["left_kidney"]) >= 0.85, dice
