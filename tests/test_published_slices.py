"""Published experiments as recipes: each whole, small, on synthetic data in its set's own layout."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hilum.cli import main
from hilum.config import built_in_recipes, read_recipe
from hilum.files import read_json
from hilum.phantom import write_set

SMALL = {
    "kits19_slices": ["prepare.inplane=[32,32]", "prepare.batch=4", "training.epochs=1", "training.epoch_steps=3"],
    "lits_slices": ["prepare.inplane=[32,32]", "prepare.batch=4", "training.steps=3"],
    "kits19_unet3d": [
        "prepare.spacing_mm=[8,8,8]",
        "prepare.patch=[16,16,16]",
        "training.epochs=1",
        "training.epoch_steps=3",
    ],
}
FACTS = {
    "kits19_slices": {"gamma": 1.5, "low": -79.0, "high": 304.0},
    "lits_slices": {"gamma": 1.0, "low": -100.0, "high": 400.0},
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name, layout in (("lits", "lits"), ("kits19", "kits23")):
        write_set(root / name, 3, 5, layout=layout, shape=(44, 40, 24), spacing_mm=(8.0, 8.0, 8.0), workers=1)
    for file in sorted((root / "kits19").rglob("segmentation.nii.gz")):  # KiTS19 counts cysts as kidney
        image = nib.load(file)
        labels = np.asarray(image.dataobj).astype(np.uint8)
        labels[labels == 3] = 1
        nib.save(nib.Nifti1Image(labels, image.affine), file)
    return root


def train(recipe: str, sets: Path, out: Path, *more: str) -> Path:
    data = recipe.split("_")[0]
    words = [*SMALL[recipe], "training.validation_cases=0", "data.folds=3", "training.precision=fp32", *more]
    if "network.name" not in " ".join(more):
        words.append("network.options={width=4,stages=3}")
    if data == "kits19":
        words.append("data.where=slices <= 110 and hu_min >= -4000 and hu_max <= 9000")
    options = [word for value in words for word in ("--set", value)]
    assert main(["train", recipe, "--data", f"{data}={sets / data}", "--out", str(out), "--quiet", *options]) == 0
    return out


@pytest.mark.parametrize("name", SMALL)
def test_the_recipe_says_what_was_published(name: str) -> None:
    recipe = read_recipe(built_in_recipes()[name])
    if name == "kits19_slices":
        assert recipe.data.where == "slices <= 110 and hu_min >= -1024 and hu_max <= 1679"
        assert (recipe.prepare.inplane, recipe.prepare.batch, recipe.prepare.dims) == ((256, 256), 50, 2)
        assert (recipe.training.total_steps, recipe.training.optimizer, recipe.training.loss) == (250, "adam", "ce")
    elif name == "lits_slices":
        assert (recipe.prepare.inplane, recipe.prepare.window_hu) == ((512, 512), (-100.0, 400.0))
        assert [step["step"] for step in recipe.postprocess][:2] == ["opening", "closing"]
    else:
        assert (recipe.training.epochs, recipe.training.learning_rate, recipe.prepare.batch) == (50, 1e-3, 2)
        assert recipe.training.loss == "weighted_ce" and recipe.data.folds == 10 and recipe.data.split_sides


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_whole_in_small(name: str, sets: Path, tmp_path: Path) -> None:
    run = train(name, sets, tmp_path / "run")
    model = read_json(run / "model" / "model.json")
    scores = read_json(run / "validation" / "scores.json")
    assert len(scores["cases"]) == 1 and (run / "validation" / "report.html").is_file()
    if name in FACTS:
        assert {key: model["plan"]["normalisation"][key] for key in FACTS[name]} == FACTS[name]
        assert model["plan"]["inplane"] == [32, 32] and model["plan"]["patch"] == [1, 32, 32]
    else:
        assert [label["name"] for label in model["scheme"]["labels"]] == ["right kidney", "left kidney", "tumour"]
    region = next(iter(scores["mean"]))
    assert {"dice", "iou", "accuracy", "precision", "sensitivity"} <= scores["mean"][region].keys()
    assert {"with_background", "without_background"} <= scores["audit"]["mean_iou"].keys()


def test_neighbours_as_channels_through_a_whole_run(sets: Path, tmp_path: Path) -> None:
    run = train("lits_slices", sets, tmp_path / "run", "prepare.context=1")
    model = read_json(run / "model" / "model.json")
    assert model["network"]["in_channels"] == 3 and model["plan"]["context"] == 1
    assert len(read_json(run / "validation" / "scores.json")["cases"]) == 1


@pytest.mark.slow
def test_unet_and_resunet_together(sets: Path, tmp_path: Path) -> None:
    unet = train("lits_slices", sets, tmp_path / "unet")
    options = ("network.name=resunet", "network.options={width=4,stages=3}")
    resunet = train("lits_slices", sets, tmp_path / "resunet", *options)
    models = [word for run in (unet, resunet) for word in ("--model", str(run / "model"))]
    scan = next((sets / "lits").rglob("volume-0.nii*"))
    assert main(["segment", str(scan), *models, "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]) == 0
    assert nib.load(next((tmp_path / "out").rglob("labels.nii.gz"))).shape == nib.load(scan).shape
