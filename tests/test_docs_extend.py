"""docs/how-to/extend.md does what it says: its files are written as they stand, and a run trains with them."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hilum.files import read_json
from hilum.phantom import write_set

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "extend.md").read_text(encoding="utf-8")
TINY = """
[prepare]
spacing_mm = [6.0, 6.0, 6.0]
patch = [16, 16, 16]
batch = 2

[data]
folds = 2
"""


def files() -> dict[str, str]:
    """Every block of the page that opens with its file's name."""
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE, re.S)
    return {name: f"# {name}\n{text}" for name, text in blocks}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, an installed distribution that offers them, and two small patients in the page's layout."""
    root = tmp_path_factory.mktemp("extend")
    for name, text in files().items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for case in write_set(root / "phantoms", 2, 5, small=True):
        patient = root / "ct" / case.name
        patient.mkdir(parents=True)
        case.image.rename(patient / "scan.nii.gz")
        case.labels.rename(patient / "drawn.nii.gz")
    return root


def hilum(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As from a shell; the folder is on Python's path."""
    extra = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hilum", *words]
    return subprocess.run(command, cwd=folder, env=os.environ | extra, capture_output=True, text=True, timeout=240)


def test_the_page_shows_all_four_and_a_recipe() -> None:
    assert set(files()) == {
        "my_parts/network.py", "my_parts/losses.py", "my_parts/changes.py", "my_parts/clinic.py",
        "mine.toml", "pyproject.toml",
    }  # fmt: skip
    for name, text in files().items():
        if name.endswith(".py"):
            assert ast.get_docstring(ast.parse(text)), name


def test_a_run_trains_with_all_of_them_and_touches_no_file_of_hilum(folder: Path) -> None:
    recipe = folder / "tiny.toml"
    steps = "steps = 2\nepoch_steps = 2\nvalidation_cases = 0\n"
    recipe.write_text((folder / "mine.toml").read_text().replace("[training]\n", f"{TINY}\n[training]\n{steps}"))
    done = hilum(
        folder, "train", "tiny.toml", "--data", f"my_parts.clinic={folder / 'ct'}", "--out", "run", "--device", "cpu",
        "--fold", "all",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    card = read_json(folder / "run" / "model" / "model.json")
    assert card["network"]["name"] == "my_parts.network", card
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses and np.isfinite(losses).all(), lines


def test_the_parts_do_what_the_page_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    from hilum import datasets, networks
    from hilum.errors import RecipeError
    from hilum.patches.own import own_changes
    from hilum.training.losses import make_loss

    for dims, shape in ((2, (8, 9)), (3, (5, 8, 9))):
        network = networks.build("my_parts.network", {"width": 6}, 1, 4, dims)
        assert network(torch.zeros(2, 1, *shape)).shape == (2, 4, *shape)
    with pytest.raises(RecipeError, match="too small"):
        networks.check_patch("my_parts.network", {}, (16, 2, 16))
    logits, truth = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 3, 5))
    plain = float(make_loss("ce", {}, 4)(logits, truth))
    assert float(make_loss("my_parts.losses.forgiving", {"doubt": 0.0}, 4)(logits, truth)) == pytest.approx(plain)
    (needle,) = own_changes(["my_parts.changes.needle"])
    image, labels = torch.zeros(1, 3, 16, 4), torch.zeros(3, 16, 4, dtype=torch.uint8)
    shares = [float(needle(image, labels, np.random.default_rng(seed))[0].mean()) for seed in range(200)]
    assert set(np.round(shares, 4)) == {0.0, round(3 / 16, 4)} and np.mean(np.array(shares) > 0) < 0.45
    assert not image.any()
    found = datasets.open_dataset("my_parts.clinic", folder / "ct")
    assert len(found.labelled) == 2 and found.scheme is not None and found.scheme.class_count == 4


def test_the_entry_points_of_the_page_give_short_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    from hilum import plugins

    groups = tomllib.loads(files()["pyproject.toml"])["project"]["entry-points"]
    made = folder / "my_parts-1.0.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: my-parts\nVersion: 1.0\n")
    text = "".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in rows.items()) for group, rows in groups.items())
    (made / "entry_points.txt").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    assert plugins.load("networks", "small", "", "").build
    assert plugins.load("losses", "forgiving", "", "").__name__ == "forgiving"
    assert plugins.load("augmentations", "needle", "", "").__name__ == "needle"
    assert plugins.load("datasets", "clinic", "", "").open_dataset
