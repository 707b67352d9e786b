"""Published comparisons as studies: planned on a set in KiTS's own layout; run whole, small, behind ``-m slow``."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.files import read_json
from hilum.phantom import write_set
from hilum.study import built_in_studies, plan_study, read_study, run_study

STUDIES = {"kits_unet_vnet": ["unet", "vnet"], "kits23_compare": ["resnet_encoder", "unet3d", "nnunet_style"]}
SMALL = """
"data.folds" = 4
"prepare.spacing_mm" = [20, 12, 12]
"prepare.patch" = [32, 32, 64]
"prepare.batch" = 1
"prepare.base_features" = 4
"training.epoch_steps" = 2
"training.validation_cases" = 0
"training.precision" = "fp32"
"""


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "kits23"
    write_set(folder, 4, 5, layout="kits", shape=(16, 32, 32), spacing_mm=(20, 12, 12), workers=1)
    return folder


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_planned_on_the_set_s_own_layout(kits: Path, tmp_path: Path, name: str) -> None:
    """Only the number of folds gives way: four cases cannot be split into five."""
    file = tmp_path / f"{name}.toml"
    file.write_text(built_in_studies()[name].read_text().replace("[settings]", '[settings]\n"data.folds" = 4'))
    plan = plan_study(read_study(file, f"kits23={kits}"), tmp_path / "out")
    assert [job.arm for job in plan.jobs] == STUDIES[name]
    assert {job.recipe.scheme.name for job in plan.jobs} == {"kits"} and len(plan.datasets["kits23"].cases) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_it_runs_whole_in_small(kits: Path, tmp_path: Path, name: str) -> None:
    text = built_in_studies()[name].read_text().replace("[settings]", f"[settings]{SMALL}")
    text = text.replace("steps = 50_000", "steps = 2").replace("trials = 12", "trials = 2")
    file = tmp_path / f"{name}.toml"
    file.write_text(text)
    answer = run_study(read_study(file, f"kits23={kits}"), tmp_path / "out", device="cpu")
    assert answer["exit_code"] == 0, answer["text"]
    rows = {row["arm"]: row for row in answer["arms"]}
    assert list(rows) == STUDIES[name] and all(row["cases"] == 1 for row in rows.values())
    if name == "kits_unet_vnet":
        for row in rows.values():
            assert {"accuracy", "sensitivity", "specificity"} <= row["mean"]["kidney_and_mass"].keys()
    else:
        assert read_json(tmp_path / "out" / "tune" / "trials.json")["trials"]
