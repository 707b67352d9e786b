"""The page of a comparison, and everything that compare says beyond single differences."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hilum.errors import InputError, UsageError
from hilum.judge.compare import compare
from hilum.pages.comparison import comparison_report

EVIL = "<b>$a_1$ & co"


def evaluation(folder: Path, gain: float, cases: int = 16, protocol: str = "plain") -> Path:
    """A scores.json with volumes; better by ``gain``, most so in the first half of the cases."""
    rng = np.random.default_rng(3)
    table: dict[str, Any] = {
        "format": 1,
        "protocol": protocol,
        "empty_policy": "null.",
        "scheme": "kits",
        "failures": {},
    }
    table["cases"], table["volumes_ml"] = {}, {}
    for i in range(cases):
        base, noise, own = rng.uniform(0.6, 0.7), rng.normal(0, 0.01), gain * (1 if i < cases / 2 else 0.1)
        table["cases"][f"case_{i}"] = {
            region: {"dice": base + own + noise, "surface_dice": base + own, "medpy_hd95_mm": 9 - 10 * own}
            for region in ("kidney_and_mass", "mass", "tumor")
        }
        table["volumes_ml"][f"case_{i}"] = {"tumor": [20.0 + i, 20.0 + i - 30 * own]}
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(table))
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [evaluation(tmp_path / name, gain) for name, gain in ((EVIL, 0.0), ("good", 0.1), ("same", 0.0))]


def groups(path: Path) -> Path:
    rows = [f"case_{i},{'venous' if i < 8 else 'arterial'},{1 + i / 4}" for i in range(16)]
    path.write_text("\n".join(["case,phase,slice_mm", *rows]))
    return path


def test_everything_is_said_and_shown(three: list[Path], tmp_path: Path) -> None:
    answer = compare(three, tmp_path / "out", {"dice": 0.02}, groups(tmp_path / "g.csv"), {"dice": 0.01})
    rows = {(r["first"], r["second"], r["region"], r["metric"]): r for r in answer["comparisons"]}
    better = rows[EVIL, "good", "tumor", "dice"]
    assert better["better"] == "good" and better["more_patients"] == 0 and better["non_inferior"] is True
    worse = rows["good", "same", "tumor", "dice"]
    assert worse["non_inferior"] is False
    equal = rows[EVIL, "same", "tumor", "dice"]
    assert equal["better"] == "" and equal["patients_needed"] is None and equal["difference"] == 0
    assert better["claim"] == 0.01 and better["claim_patients_needed"] > better["patients_needed"]
    assert 0 < better["smallest_difference"] < 0.1
    standing = next(t for t in answer["standings"] if (t["region"], t["metric"]) == ("tumor", "dice"))
    assert standing["methods"][0]["name"] == "good" and standing["methods"][0]["first"] == 1
    assert [m["rank_of_ranks"] for m in standing["methods"]] == [1, 2, 2]
    found = {
        (r["column"], r["group"]): r
        for r in answer["subgroups"]
        if r["second"] == "good" and r["region"] == "mass" and r["metric"] == "dice"
    }
    assert set(found) == {("phase", "arterial"), ("phase", "venous"), *(("slice_mm", g) for _, g in found if "mm" in _)}
    assert found["phase", "venous"]["difference"] == pytest.approx(0.1)
    assert found["phase", "arterial"]["difference"] == pytest.approx(0.01)
    bias = {row["evaluation"]: row["bias"] for row in answer["volume_agreement"]}
    assert bias[EVIL] == 0 and bias["good"] == pytest.approx(-30 * (0.1 * 8 + 0.01 * 8) / 16)
    for text in (
        "3 methods",
        "Holm",
        "phase, slice_mm",
        "0.02 for dice",
        "Bland-Altman",
        "claimed difference",
        "16 pat",
    ):
        assert text in answer["methods"], text
    table = list(csv.DictReader((tmp_path / "out" / "subgroups.csv").read_text().splitlines()))
    assert len(table) == len(answer["subgroups"])
    page = comparison_report(tmp_path / "out", figures=True).read_text(encoding="utf-8")
    for text in ("For a methods section", "Ranked case by case", "Subgroups", "Volumes against the truth", "Margins"):
        assert text in page, text
    assert EVIL not in page and "&lt;b&gt;$a_1$ &amp; co" in page
    assert "good is better than" in page and len(re.findall('<svg class="chart"', page)) == 3 + 1 + 2 + 1
    for name in ("differences", "spread", "subgroups_phase", "bland_altman_tumor"):
        with Image.open(tmp_path / "out" / "figures" / f"{name}.png") as picture:
            assert round(picture.info["dpi"][0]) == 300 and picture.width == 1680
        assert (tmp_path / "out" / "figures" / f"{name}.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_the_methods_sentence_says_only_what_was_done(tmp_path: Path) -> None:
    folders = [evaluation(tmp_path / name, gain, protocol="kits23") for name, gain in (("a", 0.0), ("b", 0.05))]
    answer = compare(folders, tmp_path / "out")
    assert "official KiTS procedure" in answer["methods"] and "difference seen" in answer["methods"]
    for text in ("subgroup", "Non-inferiority", "claimed", "left out"):
        assert text not in answer["methods"], text
    assert answer["ranking"][0]["team"] == "b" and answer["ranking"][0]["first"] == 1
    assert not (tmp_path / "out" / "subgroups.csv").exists()


def test_lower_distances_are_better(three: list[Path], tmp_path: Path) -> None:
    answer = compare(three, tmp_path / "out", {"medpy_hd95_mm": 1.0})
    row = next(r for r in answer["comparisons"] if (r["second"], r["metric"]) == ("good", "medpy_hd95_mm"))
    assert row["difference"] < 0 and row["better"] == "good" and row["non_inferior"] is True


@pytest.mark.parametrize(
    ("margins", "claims", "says"),
    [
        ({"nonsense": 0.1}, {}, "--margin of 'nonsense'"),
        ({"dice": -0.1}, {}, "above 0"),
        ({}, {"dice": 0.0}, "above 0"),
        ({}, {"nonsense": 0.1}, "--claim of 'nonsense'"),
    ],
)
def test_wrong_margins_and_claims(
    three: list[Path], tmp_path: Path, margins: dict[str, float], claims: dict[str, float], says: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        compare(three, tmp_path / "out", margins, None, claims)


def test_a_page_needs_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        comparison_report(tmp_path)
    (tmp_path / "comparison.json").write_text("[]")
    with pytest.raises(InputError, match="no comparison"):
        comparison_report(tmp_path)
