"""Public layouts, split sides and a file of folds, through a whole short training run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hilum.cli import main
from hilum.datasets import list_dataset
from hilum.files import read_json
from hilum.labels import SCHEMES
from hilum.phantom import write_set
from hilum.survey.verify import verify

# layout: the kind of data set that it is opened as
LAYOUTS = {k: k for k in ("kits23", "lits", "msd", "ircadb", "folder")} | {"dicom": "folder", "nnunet": "phantom"}
TINY = ["prepare.spacing_mm=[8,8,8]", "prepare.patch=[16,16,16]", "prepare.base_features=4", "data.folds=2"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for kind in LAYOUTS:
        write_set(root / kind, 2, 1, layout=kind, small=True, shape=(44, 40, 30), spacing_mm=(8.0, 8.0, 8.0), workers=1)
    return root


@pytest.mark.parametrize("kind", LAYOUTS)
def test_verify_finds_nothing_wrong_with_a_phantom(kind: str, sets: Path, tmp_path: Path) -> None:
    report = verify(LAYOUTS[kind], sets / kind, tmp_path, workers=1)
    assert report["summary"]["cases"] == 2 and report["summary"]["clean"] == 2, report["codes"]
    assert all(case["labels"]["voxels"] for case in report["cases"])


def train(words: list[str], data: str, out: Path) -> int:
    sets = [word for value in TINY for word in ("--set", value)]
    return main(["train", "default", "--data", data, "--out", str(out), "--steps", "4", "--quiet", *sets, *words])


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_short_run_on_each_layout(kind: str, sets: Path, tmp_path: Path) -> None:
    assert train([], f"{LAYOUTS[kind]}={sets / kind}", tmp_path / "run") == 0
    assert (tmp_path / "run" / "model" / "model.json").is_file()
    assert read_json(tmp_path / "run" / "validation" / "scores.json")["cases"]


@pytest.mark.slow
def test_a_run_on_split_sides_with_given_folds(sets: Path, tmp_path: Path) -> None:
    data, folds = f"kits23={sets / 'kits23'}", tmp_path / "folds.json"
    assert main(["data", "folds", data, "--out", str(folds), "--count", "2", "--quiet"]) == 0
    wanted = json.loads(folds.read_text())["folds"]
    assert train(["--folds", str(folds), "--fold", "1", "--set", "data.split_sides=true"], data, tmp_path / "run") == 0
    assert read_json(tmp_path / "run" / "folds.json")["folds"] == wanted
    scores = read_json(tmp_path / "run" / "validation" / "scores.json")
    assert list(scores["cases"]) == wanted[1] and "right_kidney" in scores["mean"]
    labels = read_json(tmp_path / "run" / "model" / "model.json")["scheme"]["labels"]
    assert [label["name"] for label in labels] == ["right kidney", "left kidney", "tumour", "cyst"]
    assert SCHEMES["kits"].labels[0].name == "kidney" and len(list_dataset("kits23", sets / "kits23").cases) == 2
    assert train(["--folds", str(folds), "--fold", "2"], data, tmp_path / "other") == 2  # there are two
