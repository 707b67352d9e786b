"""Data sets: pairs are found under any usual names, and what cannot be paired is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hilum.datasets import CaseRef, Dataset, describe, names, open_dataset
from hilum.datasets.pairing import taken_apart
from hilum.errors import DatasetError, UsageError
from hilum.phantom import write_set


def touch(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


def found(root: Path, kind: str = "folder") -> list[tuple[str, str, str]]:
    dataset = open_dataset(kind, root)
    base = root if root.is_dir() else root.parent
    return [
        (c.name, str(c.image.relative_to(base)), str(c.labels and c.labels.relative_to(base))) for c in dataset.cases
    ]


def public_samples(root: Path) -> dict[str, Path]:
    """A set of one or two cases in each public set's own layout; the files are empty."""
    for kind, label in (("kits19", "segmentation"), ("kits21", "aggregated_MAJ_seg"), ("kits23", "segmentation")):
        touch(root / kind, *(f"case_0000{i}/{name}.nii.gz" for i in (0, 3) for name in ("imaging", label)))
    touch(root / "lits", "batch 1/volume-0.nii", "batch 1/segmentation-0.nii", "volume-28.nii", "segmentation-28.nii")
    touch(root / "msd", "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", "imagesTr/._liver_0.nii.gz")
    table = {
        "name": "Liver",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "cancer"},
        "training": [{"image": "./imagesTr/liver_0.nii.gz", "label": "./labelsTr/liver_0.nii.gz"}],
    }
    (root / "msd" / "dataset.json").write_text(json.dumps(table))
    touch(root / "ircadb", *(f"3Dircadb1.{n}/{part}/image_0" for n in (2, 10) for part in PARTS))
    return {kind: root / kind for kind in ("kits19", "kits21", "kits23", "lits", "msd", "ircadb")}


PARTS = ("PATIENT_DICOM", "MASKS_DICOM/liver", "MASKS_DICOM/livertumor01")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms") / "tiny"
    write_set(out, 2, 0, small=True, shape=(40, 36, 20), spacing_mm=(9.0, 9.0, 9.0), workers=1)
    return out


def test_contract_of_every_kind(phantoms: Path, tmp_path: Path) -> None:
    samples = {"folder": phantoms, "phantom": phantoms, **public_samples(tmp_path)}
    assert set(samples) == set(names()), "a new kind of data set needs a sample here"
    assert set(describe()) == set(names()) and all(describe().values())
    for name, path in samples.items():
        dataset = open_dataset(name, path)
        assert isinstance(dataset, Dataset) and dataset.cases and dataset.labelled == dataset.cases
        assert len({case.name for case in dataset.cases}) == len(dataset.cases)
        for case in dataset.cases:
            assert case.image.exists() and case.labels is not None and case.labels.exists() and case.patient
        assert dataset.case(dataset.cases[0].name) == dataset.cases[0]
        with pytest.raises(DatasetError):
            dataset.case("nobody")
        with pytest.raises(DatasetError):
            open_dataset(name, path / "absent")


def test_phantom_set(phantoms: Path, tmp_path: Path) -> None:
    dataset = open_dataset("phantom", phantoms)
    assert dataset.scheme is not None and dataset.scheme.name == "kits" and dataset.name == "tiny"
    assert open_dataset("phantom", phantoms / "manifest.json") == dataset
    assert open_dataset("folder", phantoms).scheme == dataset.scheme
    with pytest.raises(DatasetError, match="no manifest"):
        open_dataset("phantom", tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(DatasetError, match="no manifest of a phantom set"):
        open_dataset("phantom", tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 99, "scheme": "kits", "cases": []}')
    with pytest.raises(DatasetError, match="format 99"):
        open_dataset("phantom", tmp_path)


def test_own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.nii.gz")
    (tmp_path / "my_data").mkdir()
    (tmp_path / "my_data" / "__init__.py").write_text("")
    (tmp_path / "my_data" / "mine.py").write_text(
        "from hilum.datasets import CaseRef, Dataset\n"
        "def open_dataset(path):\n    return Dataset('mine', (CaseRef('a', path / 'a.nii.gz', None, 'a'),), None)\n"
    )
    (tmp_path / "my_data" / "wrong.py").write_text("def open_dataset(path):\n    return 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_dataset("my_data.mine", tmp_path).cases == (CaseRef("a", tmp_path / "a.nii.gz", None, "a"),)
    assert open_dataset("my_data.mine", tmp_path).labelled == ()
    for name in ("my_data.wrong", "my_data.absent", "my_data.__init__", "kitz", "folds"):
        with pytest.raises(UsageError):
            open_dataset(name, tmp_path)
    for module in [m for m in sys.modules if m.startswith("my_data")]:
        del sys.modules[module]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (
            ["imagesTr/liver_1_0000.nii.gz", "labelsTr/liver_1.nii.gz", "imagesTs/liver_2_0000.nii.gz"],
            [("liver_1", "imagesTr/liver_1_0000.nii.gz", "labelsTr/liver_1.nii.gz")],
        ),
        (
            ["imagesTr/liver_1.nii.gz", "labelsTr/liver_1.nii.gz"],
            [("liver_1", "imagesTr/liver_1.nii.gz", "labelsTr/liver_1.nii.gz")],
        ),
        (
            ["images/case_0000.nii.gz", "labels/case_0000.nii.gz", "images/case_0001.nrrd", "labels/case_0001.mha"],
            [
                ("case_0000", "images/case_0000.nii.gz", "labels/case_0000.nii.gz"),
                ("case_0001", "images/case_0001.nrrd", "labels/case_0001.mha"),
            ],
        ),
        (
            ["volume-3.nii", "segmentation-3.nii", "volume-10.nii", "segmentation-10.nii"],
            [("volume-10", "volume-10.nii", "segmentation-10.nii"), ("volume-3", "volume-3.nii", "segmentation-3.nii")],
        ),
        (
            ["images/volume-3.nii", "masks/segmentation-3.nii"],
            [("volume-3", "images/volume-3.nii", "masks/segmentation-3.nii")],
        ),
        (
            ["x_ct.nii.gz", "x_seg.nii.gz", "y.nii.gz", "y_mask.nii.gz", "Z_CT.nii", "Z_Label.nii"],
            [
                ("Z", "Z_CT.nii", "Z_Label.nii"),
                ("x", "x_ct.nii.gz", "x_seg.nii.gz"),
                ("y", "y.nii.gz", "y_mask.nii.gz"),
            ],
        ),
        (
            ["case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz"],
            [("case_00000", "case_00000/imaging.nii.gz", "case_00000/segmentation.nii.gz")],
        ),
        (
            ["case_00000/imaging.nii.gz", "case_00000/aggregated_MAJ_seg.nii.gz"],
            [("case_00000", "case_00000/imaging.nii.gz", "case_00000/aggregated_MAJ_seg.nii.gz")],
        ),
        (["patient/ct.nii.gz", "patient/labels.nii.gz"], [("patient", "patient/ct.nii.gz", "patient/labels.nii.gz")]),
        (
            ["a/images/1_x.nii.gz", "a/labels/1_x.nii.gz", ".hidden/x.nii", "notes.txt"],
            [("1_x", "a/images/1_x.nii.gz", "a/labels/1_x.nii.gz")],
        ),
    ],
)
def test_layouts(tmp_path: Path, files: list[str], wanted: list[tuple[str, str, str]]) -> None:
    assert found(touch(tmp_path / "data", *files)) == wanted


def test_a_folder_that_is_one_case(tmp_path: Path) -> None:
    root = touch(tmp_path / "one", "ct.nii.gz", "labels.nii.gz")
    assert found(root) == [("one", "ct.nii.gz", "labels.nii.gz")]


def test_no_partner_is_said(tmp_path: Path) -> None:
    root = touch(tmp_path / "d", "images/a.nii.gz", "labels/a.nii.gz", "images/b.nii.gz", "images/e.nii.gz")
    with pytest.raises(DatasetError, match=r"2 of 4 files have no partner \(1 pairs found\): images/b.nii.gz") as error:
        open_dataset("folder", root)
    assert "columns image,label" in str(error.value)
    with pytest.raises(DatasetError, match="holds no NIfTI"):
        open_dataset("folder", touch(tmp_path / "e", "notes.txt"))
    channels = touch(tmp_path / "f", "imagesTr/a_0000.nii", "imagesTr/a_0001.nii", "labelsTr/a.nii")
    with pytest.raises(DatasetError, match="a_0001"):
        open_dataset("folder", channels)
    both = touch(tmp_path / "g", "images/a.nii", "images/a.nii.gz", "labels/a.nii.gz")
    with pytest.raises(DatasetError, match="no partner"):
        open_dataset("folder", both)


def test_equal_names_are_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{site}/{kind}/x.nii" for site in ("s1", "s2") for kind in ("images", "labels")))
    with pytest.raises(DatasetError, match="'x' \\(2 times\\)"):
        open_dataset("folder", root)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(tmp_path: Path, separator: str) -> None:
    touch(tmp_path, "ct/1.nii.gz", "seg/1.nii.gz", "ct/2.nii.gz", "dicom/scan1/IM1")
    rows = [["Image", "label", "case", "patient"], ["ct/1.nii.gz", "seg/1.nii.gz", "one", "p"]]
    rows += [
        ["ct/2.nii.gz", "", "", "p"],
        ["", "", "", ""],
        ["dicom/scan1", str(tmp_path / "seg/1.nii.gz"), "three", ""],
    ]
    text = "\ufeff" + "\r\n".join(separator.join(row) for row in rows)
    (tmp_path / "my.csv").write_text(text, encoding="utf-8")
    cases = open_dataset("folder", tmp_path / "my.csv").cases
    assert [(c.name, c.patient) for c in cases] == [("one", "p"), ("2", "p"), ("three", "three")]
    assert cases[1].labels is None and cases[2].image.is_dir() and cases[2].labels == tmp_path / "seg/1.nii.gz"
    (tmp_path / "my.csv").rename(tmp_path / "manifest.csv")
    assert open_dataset("folder", tmp_path).cases == cases


@pytest.mark.parametrize(
    "table",
    [
        [{"image": "a_0000.nii", "label": "s.nii"}],
        {"cases": [{"image": "a_0000.nii", "labels": "s.nii", "extra": 1}]},
        {"name": "MSD", "training": [{"image": "./a_0000.nii", "label": "./s.nii"}], "test": ["./t.nii"]},
    ],
)
def test_json(tmp_path: Path, table: object) -> None:
    touch(tmp_path, "a_0000.nii", "s.nii")
    (tmp_path / "dataset.json").write_text(json.dumps(table))
    for path in (tmp_path, tmp_path / "dataset.json"):
        (case,) = open_dataset("folder", path).cases
        assert (case.name, case.image, case.labels) == ("a_0000", tmp_path / "a_0000.nii", tmp_path / "s.nii")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.csv", "scan,label\na,b\n", "first line is 'scan,label'"),
        ("m.csv", "image,label\n,b\n", "line 2"),
        ("m.csv", "image,label\n", "has no cases"),
        ("m.csv", "image,label\nno.nii,gone.nii\n", "2 of 2 files do not exist"),
        ("m.csv", "image,case\na.nii,x\na.nii,x\n", "'x' \\(2 times\\)"),
        ("m.csv", "image,case\na.nii,../x\n", "cannot be folder names"),
        ("m.json", "{", "is not JSON"),
        ("m.json", '{"numTraining": 3}', "lists no cases"),
        ("m.json", '{"cases": 3}', "no list"),
        ("m.json", '["a.nii"]', "case 1"),
        ("m.json", '[{"image": 3}]', "case 1"),
        ("m.json", '{"labels": {"kidney": "x"}, "cases": [{"image": "a.nii"}]}', "cannot be understood"),
        ("m.nii", "", "no manifest"),
    ],
)
def test_bad_manifests(tmp_path: Path, name: str, text: str, told: str) -> None:
    touch(tmp_path, "a.nii")
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=told) as error:
        open_dataset("folder", tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("file", "table", "values", "regions"),
    [
        ("labels.json", "kits", {"kidney": 1, "tumour": 2, "cyst": 3}, ["kidney_and_mass", "mass", "tumor"]),
        ("labels.json", {"background": 0, "liver": 1, "tumour": 2}, {"liver": 1, "tumour": 2}, ["liver", "tumour"]),
        ("labels.json", {"labels": {"0": "background", "1": "spleen"}}, {"spleen": 1}, ["spleen"]),
        ("dataset.json", {"labels": {"0": "background", "1": "liver"}}, {"liver": 1}, ["liver"]),
        (
            "dataset.json",
            {
                "labels": {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2},
                "regions_class_order": [1, 3, 2],
            },
            {"kidney": 1, "masses": 3, "tumor": 2},
            ["kidney", "masses", "tumor"],
        ),
    ],
)
def test_scheme_beside_the_data(
    tmp_path: Path, file: str, table: object, values: dict[str, int], regions: list[str]
) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / file).write_text(json.dumps(table))
    scheme = open_dataset("folder", tmp_path).scheme
    assert scheme is not None
    assert {label.name: label.value for label in scheme.labels} == values
    assert sorted(region.name for region in scheme.regions) == sorted(regions)


def test_a_damaged_scheme_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "labels.json").write_text('{"kidney": [1, 2]}')
    with pytest.raises(DatasetError, match="regions_class_order"):
        open_dataset("folder", tmp_path)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(DatasetError, match="not JSON"):
        open_dataset("folder", tmp_path)


def test_roles_from_names() -> None:
    root = Path("d")
    for file, role, key in [
        ("d/seg/x_ct.nii.gz", "label", "x_ct"),
        ("d/ct_7.nii", "image", "7"),
        ("d/tumour.seg.nrrd", "label", "tumour"),
        ("d/plain.mha", "", "plain"),
    ]:
        named = taken_apart(Path(file), root)
        assert (named.role, named.key) == (role, key)


def test_patients_never_share_an_image(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "b.nii", "a_seg.nii", "b_seg.nii")
    rows = "image,label,case,patient\na.nii,a_seg.nii,c1,p1\nb.nii,b_seg.nii,c2,p2\n./a.nii,a_seg.nii,c3,{}\n"
    file = tmp_path / "list.csv"
    file.write_text(rows.format("p3"))
    with pytest.raises(DatasetError, match="share an image: 'c1' and 'c3'"):
        open_dataset("folder", file)
    file.write_text(rows.format("p1"))  # two readings of one scan, never split
    assert len(open_dataset("folder", file).cases) == 3


def test_runs_and_results_may_lie_below_the_data(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii", "labels/a.nii", "runs/x/validation/truth/a.nii", "results/a/labels.nii.gz")
    touch(tmp_path, "runs/x/plan.json", "runs/x/recipe.toml", "results/a/case.json")
    assert [case.name for case in open_dataset("folder", tmp_path).cases] == ["a"]
    touch(tmp_path, "results/a/other.nii")  # not hilum's: never passed over in silence
    assert len(open_dataset("folder", tmp_path).cases) == 2
