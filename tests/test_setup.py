"""Whether a run may be gone on with: what must stay, what may change, and how a difference is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hilum.config import recipe_from, to_table
from hilum.datasets import open_dataset
from hilum.errors import RecipeError
from hilum.labels import SCHEMES
from hilum.phantom import write_set
from hilum.prepare.fingerprint import fingerprint
from hilum.progress import SILENT
from hilum.training import setup
from hilum.training.setup import check_same_run, set_up


def table(**sections: Any) -> dict[str, Any]:
    return to_table(recipe_from({"name": "x", "labels": "kits"} | sections))


def test_a_scheme_s_name_and_its_table_are_the_same_labels() -> None:
    facts = {"recipe": table(labels=SCHEMES["kits"].to_json()), "fold": "0"}
    check_same_run(table(training={"steps": 9, "budget": "2h"}), 0, facts, Path("run"))


@pytest.mark.parametrize(
    ("now", "fold", "sentence"),
    [
        (table(labels="abdomen"), 0, "begun differently: labels were 'kits' and are 'abdomen'; wanted"),
        (table(labels={"name": "kits", "values": {"kidney": 1}}), 0, "begun differently: labels mean something else"),
        (table(training={"seed": 3}), 0, r"begun differently: training\.seed was 0 and is 3"),
        (table(), "all", "begun differently: fold was '0' and is 'all'"),
    ],
)
def test_what_differs_is_told(now: dict[str, Any], fold: int | str, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        check_same_run(now, fold, {"recipe": table(), "fold": "0"}, Path("run"))


def test_the_planned_patch_fits_a_network_with_a_topology_of_its_own(tmp_path: Path) -> None:
    write_set(tmp_path / "data", 2, 0, small=True, workers=1)
    dataset = open_dataset("phantom", tmp_path / "data")
    for name, edge in (("plain_unet", 8), ("vnet", 16)):
        wishes = {"spacing_mm": [4.0, 4.0, 4.0], "memory_gb": 1.0}
        given = {"name": "x", "labels": "kits", "prepare": wishes, "network": {"name": name}, "data": {"folds": 2}}
        setup = set_up(recipe_from(given), dataset, tmp_path / "run", 0, 1, SILENT)  # the same folder: planned again
        assert all(n % edge == 0 for n in setup.plan.patch), (name, setup.plan.patch)
        setup.spec.build()


def test_another_network_reads_no_scan_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path / "data", 2, 0, shape=(16, 16, 16), spacing_mm=(20, 20, 20), workers=1)
    read = []
    monkeypatch.setattr(setup, "fingerprint", lambda *args: read.append(1) or fingerprint(*args))

    def planned(name: str, **more: Any) -> tuple[int, ...]:
        dataset = open_dataset("phantom", tmp_path / "data")
        recipe = recipe_from(
            {"name": "x", "labels": "kits", "data": {"folds": 2}, "network": {"name": name}, "prepare": more}
        )
        return set_up(recipe, dataset, tmp_path / "run", 0, 1, SILENT).plan.patch

    planned("plain_unet")
    facts = (tmp_path / "run" / "fingerprint.json").read_text()
    planned("vnet")
    planned("vnet", spacing_mm=[25.0, 25.0, 25.0])
    assert read == [1]
    assert (tmp_path / "run" / "fingerprint.json").read_text() != facts  # it says which network asked
    os.utime(next((tmp_path / "data" / "images").iterdir()), (1, 1))  # as if the scan were another
    planned("vnet")
    assert read == [1, 1]
