"""Phantom sets on disk: each layout as its real set is, read back by that set's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from hilum.datasets import open_dataset
from hilum.labels import SCHEMES
from hilum.phantom import WrittenCase, write_set
from hilum.phantom.layouts import layout, layouts
from hilum.phantom.sets import LAYOUTS
from hilum.scans import read_labels, read_scan

TINY = {"shape": (48, 40, 24), "spacing_mm": (8.0, 8.0, 8.0), "workers": 1}


def write(out: Path, kind: str, cases: int = 1) -> list[WrittenCase]:
    return write_set(out, cases, 3, layout=kind, **TINY)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_keeps_its_contract(kind: str, tmp_path: Path) -> None:
    module = layout(kind)
    assert module.__doc__ and set(module.SCHEMES) <= set(SCHEMES)
    (case,) = write(tmp_path / "set", kind)
    where = module.place(tmp_path / "set", 0)
    assert (case.name, case.image, case.labels) == (where.name, where.image, where.labels)
    assert where.image.exists() and where.labels.exists()
    rows = json.loads((tmp_path / "set" / "manifest.json").read_text())["cases"]
    assert [row["case"] for row in rows] == [case.name]


def test_names_are_known() -> None:
    assert set(layouts()) == {"folder", "nnunet", "kits23", "kits", "lits", "msd", "ircadb", "dicom"}


@pytest.mark.parametrize("kind", ["kits23", "lits", "msd", "ircadb"])
def test_the_sets_own_reader_opens_it(kind: str, tmp_path: Path) -> None:
    made = write(tmp_path / "set", kind, 2)
    dataset = open_dataset(kind, tmp_path / "set")
    assert len(dataset.cases) == 2 and [case.image for case in dataset.cases] == [case.image for case in made]
    assert dataset.scheme is not None
    for case in dataset.cases:
        assert case.labels is not None
        scan = read_scan(case.image)
        if case.labels.is_file():
            labels = read_labels(case.labels, dataset.scheme)
            assert labels.grid.same_as(scan.grid) and labels.array.any()


def test_kits_lies_on_its_own_axes(tmp_path: Path) -> None:
    (kits,) = write(tmp_path / "kits", "kits23")
    (plain,) = write(tmp_path / "plain", "folder")
    scan, usual = read_scan(kits.image), read_scan(plain.image)
    assert scan.codes == "IPL" and (scan.affine[:3, 3] == 0).all()
    assert (scan.array == usual.oriented("IPL").array).all()
    table = json.loads((tmp_path / "kits" / "kits23.json").read_text())
    assert [row["case_id"] for row in table] == ["case_00000"] and table[0]["synthetic"] is True


def test_lits_is_not_compressed_and_holds_liver(tmp_path: Path) -> None:
    (case,) = write(tmp_path / "set", "lits")
    assert case.image.name == "volume-0.nii" and case.labels.name == "segmentation-0.nii"
    labels = read_labels(case.labels, SCHEMES["lits"])
    liver = float((labels.array > 0).sum() * labels.voxel_ml)
    assert 700 < liver < 3200
    tumours = sum(x["volume_ml"] for x in case.facts["lesions"] if x["kind"] == "liver tumour")
    assert (labels.array == 2).sum() * labels.voxel_ml == pytest.approx(tumours, abs=0.01)
    assert not [x for x in case.facts["lesions"] if x["kind"] == "tumour"], "no renal tumour goes unlabelled"


def test_msd_has_an_index(tmp_path: Path) -> None:
    write(tmp_path / "set", "msd", 2)
    table = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert table["labels"] == {"0": "background", "1": "liver", "2": "cancer"} and table["numTraining"] == 2
    for pair in table["training"]:
        assert (tmp_path / "set" / pair["image"]).is_file() and (tmp_path / "set" / pair["label"]).is_file()


def test_ircadb_masks_lie_on_the_scan(tmp_path: Path) -> None:
    (case,) = write(tmp_path / "set", "ircadb")
    scan = read_scan(case.image)
    assert (case.image.name, case.labels.name) == ("PATIENT_DICOM", "MASKS_DICOM") and scan.codes[0] in "LR"
    slices = sorted(case.image.iterdir(), key=lambda path: int(path.name.split("_")[1]))
    assert [path.name for path in slices] == [f"image_{k}" for k in range(24)]
    liver = [pydicom.dcmread(case.labels / "liver" / path.name) for path in slices]
    assert {int(v) for ds in liver for v in np.unique(ds.pixel_array)} == {0, 255}
    first, mask = pydicom.dcmread(slices[5]), liver[5]
    assert first.ImagePositionPatient == mask.ImagePositionPatient
    assert {"liver", "rightkidney", "leftkidney", "spleen"} <= {path.name for path in case.labels.iterdir()}
    hu = np.concatenate([pydicom.dcmread(p).pixel_array[m.pixel_array > 0] for p, m in zip(slices, liver, strict=True)])
    assert 20 < np.median(hu) < 170


def test_dicom_is_what_the_volume_was(tmp_path: Path) -> None:
    (case,) = write(tmp_path / "set", "dicom")
    (plain,) = write(tmp_path / "plain", "folder")
    scan, usual = read_scan(case.image).oriented("LPS"), read_scan(plain.image)
    assert (scan.array == usual.array).all()
    assert scan.affine == pytest.approx(usual.affine, abs=1e-3)
    again = write_set(tmp_path / "again", 1, 3, layout="dicom", **TINY)[0]  # type: ignore[arg-type]
    for one, two in zip(sorted(case.image.iterdir()), sorted(again.image.iterdir()), strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_nnunet_has_dataset_json(tmp_path: Path) -> None:
    write(tmp_path / "set", "nnunet")
    table = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert table["labels"] == {"background": 0, "kidney": 1, "tumour": 2, "cyst": 3} and table["numTraining"] == 1
