"""The strong recipes run whole on synthetic CT in their set's own layout; here with small numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum import device as devices
from hilum.config import read_recipe
from hilum.datasets import open_dataset
from hilum.model import load_model
from hilum.phantom import write_set
from hilum.training.loop import train

SMALL = ["training.epochs=0", "training.steps=2", "training.epoch_steps=1", "data.folds=2", "data.stratify=false"]
COARSE = ["prepare.spacing_mm=[6.0, 6.0, 6.0]", "prepare.patch=[16, 16, 16]"]


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    write_set(folder, 2, 3, small=True, layout="kits23", workers=1)
    return folder


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nnunet_default", ["prepare.base_features=4", "prepare.batch=2", *COARSE, "labels=kits"]),
        ("resenc_l", ["prepare.base_features=4", "prepare.batch=2", *COARSE, "labels=kits"]),
        (
            "kits23_winner",
            [
                *COARSE,
                "network.options={ width = 4, blocks = [1, 1, 1] }",
                "locator.spacing_mm=8.0",
                "locator.patch=[8, 8, 8]",
                "locator.base_features=4",
                "locator.steps=2",
            ],
        ),
        (
            "kits23_cascade",
            [
                *COARSE,
                "cascade.out_of_fold=folds",
                "prepare.base_features=4",
                "prepare.batch=2",
                "cascade.patch=[8, 16, 16]",
                "cascade.steps=1",
            ],
        ),
    ],
)
def test_it_runs_whole(
    name: str, changes: list[str], kits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cpu_count", lambda *_: 1)
    recipe = read_recipe(name, [*SMALL, *changes, 'data.dataset="kits23"'])
    if recipe.network.name == "segresnet":
        pytest.importorskip("monai", reason="the extra networks is not installed")
    result = train(recipe, open_dataset("kits23", kits), tmp_path / "run", device="cpu")
    model = load_model(result.model)
    assert result.steps == 2 and model.scheme.name == "kits"
    if name == "kits23_winner":
        assert model.spec.head == "regions" and model.spec.out_channels == 3
        assert load_model(result.model / "locator").plan.spacing_mm == (8.0, 8.0, 8.0)
    if name == "kits23_cascade":
        assert model.first is not None and model.spec.head == model.first.spec.head == "regions"
        assert model.first.plan.spacing_mm[0] > 6.0 and model.spec.in_channels == 4
