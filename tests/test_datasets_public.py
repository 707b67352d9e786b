"""The public sets: layouts, label schemes, clinical tables, what is known about them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.cli import main
from hilum.datasets import facts_of, list_dataset, names, open_dataset
from hilum.errors import DatasetError, UsageError
from hilum.labels import SCHEMES
from test_datasets import public_samples, touch

PUBLIC = ("kits19", "kits21", "kits23", "lits", "msd", "ircadb")
CHECKS = {"axes", "odd_shape", "stored_type", "unit_spacing", "overlap", "excluded", "note"}
REAL = Path(__file__).parents[2] / "shared" / "data"


@pytest.mark.parametrize("kind", PUBLIC)
def test_every_public_set_is_known(kind: str) -> None:
    facts = facts_of(kind)
    assert facts is not None and facts.licence.startswith("CC ") and facts.citation and facts.home.startswith("http")
    assert facts.layout and facts.cases and facts.traps
    assert (facts.remote is None) == bool(facts.by_hand), "either a mirror or what a person must do"
    codes = [trap.code for trap in facts.traps]
    assert len(set(codes)) == len(codes)
    for trap in facts.traps:
        assert trap.check in CHECKS and trap.text.endswith(".")
        if trap.check == "overlap":
            assert set(trap.value) <= set(names())
    assert facts_of("folder") is None
    with pytest.raises(UsageError):
        facts_of("kitz")


def test_schemes_and_nested_regions(tmp_path: Path) -> None:
    samples = public_samples(tmp_path)
    schemes = {kind: open_dataset(kind, path).scheme for kind, path in samples.items()}
    assert {kind: scheme.name for kind, scheme in schemes.items() if scheme} == {
        "kits19": "kits19", "kits21": "kits", "kits23": "kits", "lits": "lits", "msd": "lits", "ircadb": "ircadb",
    }  # fmt: skip
    assert [(r.name, r.labels) for r in SCHEMES["kits"].regions] == [
        ("kidney_and_mass", (1, 2, 3)), ("mass", (2, 3)), ("tumor", (2,)),
    ]  # fmt: skip
    assert [(r.name, r.labels) for r in SCHEMES["lits"].regions] == [("liver", (1, 2)), ("lesion", (2,))]


def test_kits_patients_are_the_same_across_the_three(tmp_path: Path) -> None:
    samples = public_samples(tmp_path)
    patients = [{c.patient for c in open_dataset(kind, samples[kind]).cases} for kind in ("kits19", "kits21", "kits23")]
    assert patients[0] == patients[1] == patients[2] == {"case_00000", "case_00003"}
    groups = {kind: facts.patients for kind in PUBLIC if (facts := facts_of(kind))}
    assert groups["kits19"] == groups["kits21"] == groups["kits23"] == "kits"


def test_kits_repository_table_and_missing_images(tmp_path: Path) -> None:
    repository = touch(tmp_path / "kits23", "dataset/case_00400/segmentation.nii.gz", "kits23/__init__.py")
    rows = [{"case_id": "case_00400", "age_at_nephrectomy": 61, "malignant": True}]
    (repository / "dataset" / "kits23.json").write_text(json.dumps(rows))
    (case,) = list_dataset("kits23", repository).cases
    assert case.facts == {"age_at_nephrectomy": 61, "malignant": True}
    assert case.image == repository / "dataset" / "case_00400" / "imaging.nii.gz" and not case.image.exists()
    with pytest.raises(DatasetError, match="1 of 2 files do not exist"):
        open_dataset("kits23", repository)
    touch(repository, "dataset/case_00400/imaging.nii.gz", "dataset/case_00401/imaging.nii.gz")
    assert [c.labels is None for c in open_dataset("kits23", repository).cases] == [False, True]
    (repository / "dataset" / "kits23.json").write_text('{"case_00400": 1}')
    with pytest.raises(DatasetError, match="no clinical table"):
        open_dataset("kits23", repository)
    with pytest.raises(DatasetError, match="holds no folders case_00000"):
        list_dataset("kits19", touch(tmp_path / "empty", "notes.txt"))


def test_lits_layout(tmp_path: Path) -> None:
    root = touch(tmp_path, "b1/volume-2.nii", "b1/segmentation-2.nii", "b2/volume-10.nii", "test/test-volume-0.nii")
    cases = list_dataset("lits", root).cases
    assert [(c.name, c.labels is not None) for c in cases] == [
        ("volume-2", True), ("volume-10", True), ("test-volume-0", False),
    ]  # fmt: skip
    with pytest.raises(DatasetError, match="segmentation-10"):
        open_dataset("lits", root)
    touch(root, "b2/volume-2.nii")
    with pytest.raises(DatasetError, match="twice"):
        list_dataset("lits", root)
    with pytest.raises(DatasetError, match="holds no volume-0"):
        list_dataset("lits", tmp_path / "b1" / "volume-2.nii")


def msd(root: Path, **changes: object) -> Path:
    touch(root, "imagesTr/hepaticvessel_001.nii.gz", "labelsTr/hepaticvessel_001.nii.gz")
    rows = [{"image": "./imagesTr/hepaticvessel_001.nii.gz", "label": "./labelsTr/hepaticvessel_001.nii.gz"}]
    table = {
        "name": "HepaticVessel",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "Vessel", "2": "Tumour"},
        "training": rows,
    }
    (root / "dataset.json").write_text(json.dumps({**table, **changes}))
    return root


def test_msd_tasks(tmp_path: Path) -> None:
    root = msd(tmp_path / "Task08_HepaticVessel")
    dataset = open_dataset("msd", root)
    assert dataset.scheme == SCHEMES["hepatic_vessel"] and dataset.cases[0].name == "hepaticvessel_001"
    with pytest.raises(DatasetError, match="holds Task08_HepaticVessel"):
        open_dataset("msd", tmp_path)
    other = msd(tmp_path / "own", labels={"0": "background", "1": "pancreas", "2": "cancer", "3": "duct"})
    scheme = open_dataset("msd", other).scheme
    assert scheme is not None and [x.name for x in scheme.labels] == ["pancreas", "cancer", "duct"]
    for bad, told in (
        ({"modality": {"0": "MRI"}}, "a task of MRI"),
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, "FLAIR, T1w"),
        ({"training": [{"image": "x"}]}, "no dataset.json of MSD"),
        ({"labels": {"0": "background", "one": "liver"}}, "cannot be understood"),
    ):
        with pytest.raises(DatasetError, match=told):
            open_dataset("msd", msd(tmp_path / "own", **bad))


def test_ircadb_layout(tmp_path: Path) -> None:
    root = public_samples(tmp_path)["ircadb"]
    dataset = open_dataset("ircadb", root)
    assert [c.name for c in dataset.cases] == ["3Dircadb1.2", "3Dircadb1.10"]  # not as text
    assert dataset.cases[0].labels == root / "3Dircadb1.2" / "MASKS_DICOM"
    assert [c.name for c in open_dataset("ircadb", root / "3Dircadb1.2").cases] == ["3Dircadb1.2"]
    touch(root, "3Dircadb1.3/PATIENT_DICOM.zip", "3Dircadb1.3/MASKS_DICOM.zip")
    with pytest.raises(DatasetError, match="still packed"):
        list_dataset("ircadb", root)
    touch(
        tmp_path / "x",
        "3Dircadb1.4/PATIENT_DICOM/PATIENT_DICOM/image_0",
        "3Dircadb1.4/MASKS_DICOM/MASKS_DICOM/liver/image_0",
    )
    (case,) = open_dataset("ircadb", tmp_path / "x").cases
    assert case.image.parts[-2:] == ("PATIENT_DICOM", "PATIENT_DICOM")
    with pytest.raises(DatasetError, match="fetch ircadb"):
        list_dataset("ircadb", touch(tmp_path / "none", "notes.txt"))


def test_real_label_maps_alone() -> None:
    if not (REAL / "kits23_labels").is_dir():
        pytest.skip("the real label maps are not here")
    cases = list_dataset("kits23", REAL / "kits23_labels").cases
    assert len(cases) == 160 and all(c.labels is not None and c.labels.is_file() for c in cases)
    with pytest.raises(DatasetError, match="160 of 320 files do not exist"):
        open_dataset("kits23", REAL / "kits23_labels")


def test_list_tells_licence_citation_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert set(table) == set(names())
    for kind in PUBLIC:
        assert table[kind]["licence"] and table[kind]["citation"] and table[kind]["traps"]
        assert bool(table[kind]["fetch"]) != bool(table[kind]["by_hand"])
    assert table["kits23"]["size_gb"] == 41 and "msd:Task08_HepaticVessel" in table["msd"]["fetch"]
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert "CC BY-NC-SA 4.0" in text and "cite: Heller" in text and "about 41 GB" in text
