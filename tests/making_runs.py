"""Small training runs: cubes that are learnt in seconds, a recipe for them, what a run left, and how to cut one off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from hilum import device as devices
from hilum.config import recipe_from
from hilum.datasets import CaseRef, Dataset
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.progress import Progress
from hilum.training.tracking import read_log

SIDE = 24


def make_cases(folder: Path, count: int = 3) -> Dataset:
    """Cubes of 60 HU with a tumour of 120 HU in a block of -50 HU: learnt in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for index in range(count):
        rng = np.random.default_rng(index)
        labels = np.zeros((SIDE,) * 3, np.uint8)
        a, b, c = rng.integers(3, 7, 3)
        labels[a : a + 12, b : b + 12, c : c + 12] = 1
        labels[a + 3 : a + 8, b + 3 : b + 8, c + 3 : c + 8] = 2
        hu = np.array([-50, 60, 120])[labels] + rng.normal(0, 10, labels.shape)
        for name, array in (("image", hu.astype(np.int16)), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"case{index}_{name}.nii.gz")
        cases.append(
            CaseRef(
                f"case{index}",
                folder / f"case{index}_image.nii.gz",
                folder / f"case{index}_labels.nii.gz",
                f"patient{index}",
            )
        )
    return Dataset("cubes", tuple(cases), SCHEMES["lits"])


def recipe(**training: Any) -> Any:
    table: dict[str, Any] = {
        "name": "cubes",
        "labels": "lits",
        "data": {"dataset": "folder", "folds": 3},
        "prepare": {"patch": [16, 16, 16], "batch": 2, "base_features": 4, "spacing_mm": [1.0, 1.0, 1.0]},
        "patches": {"augment": "light"},
        "training": {
            "steps": 6,
            "epoch_steps": 1,
            "optimizer": "adamw",
            "learning_rate": 0.01,
            "precision": "fp32",
            **training,
        },
    }
    return recipe_from(table)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_count", lambda *_: 1)  # tests share the machine


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_log(out / "log.jsonl") if "epoch" in line]


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_model(a).weights[0], load_model(b).weights[0]
    return all(torch.equal(value, second[key]) for key, value in first.items())


class Interrupting(Progress):
    """A progress that pulls the plug when a training step is done for the n-th time."""

    def __init__(self, after: int, error: type[BaseException] | int = KeyboardInterrupt, title: str = ""):
        super().__init__(title)
        self.after, self.error = after, error

    def stage(self, title: str, total: int = 0) -> Progress:
        return Interrupting(self.after, self.error, title)

    def step(self, count: int = 1, note: str = "") -> None:
        super().step(count, note)
        if self.title == "Training" and self.done == self.after:
            if isinstance(self.error, int):
                os.kill(os.getpid(), self.error)
            else:
                raise self.error
