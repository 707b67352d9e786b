"""Every official value of the golden set, reproduced; the whole of expected.json is walked and every number counted."""

from __future__ import annotations

import hashlib
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hilum.judge.evaluate import evaluate, score_case
from hilum.judge.ranking import kits_means, rank_teams
from hilum.labels import SCHEMES
from hilum.scans import read_volume

GOLDEN = Path(__file__).parents[2] / "shared" / "data" / "golden_metrics"
pytestmark = pytest.mark.skipif(
    not (GOLDEN / "expected.json").exists(), reason="shared/data is absent: the official values cannot be compared"
)
EXACT, SURFACE, DISTANCE = 1e-12, 1e-9, 1e-6


@cache
def expected() -> dict[str, Any]:
    return json.loads((GOLDEN / "expected.json").read_text())


@cache
def rows() -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in json.loads((GOLDEN / "pairs.json").read_text())["pairs"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs as two folders; ``lits`` holds the truths of the volumes that the official run was given."""
    out = tmp_path_factory.mktemp("golden")
    for side in ("truth", "prediction", "lits"):
        (out / side).mkdir()
    for name, row in rows().items():
        os.symlink(GOLDEN / row["gt"], out / "truth" / f"{name}.nii.gz")
        os.symlink(GOLDEN / row["pred"], out / "prediction" / f"{name}.nii.gz")
    for name in expected()["aggregate"]["lits_pooled"]["members"]:
        os.symlink(GOLDEN / rows()[name]["gt"], out / "lits" / f"{name}.nii.gz")
    return out


@pytest.fixture(scope="module")
def run(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Evaluations by protocol, each made once."""

    @cache
    def once(protocol: str, truth: str = "truth") -> dict[str, Any]:
        out = tmp_path_factory.mktemp(protocol)
        scheme = SCHEMES["kits"] if protocol.startswith("lits") else None
        result = evaluate(folders / truth, folders / "prediction", protocol, out, scheme=scheme)
        assert json.loads((out / "scores.json").read_text()) == result
        return result

    return once


def number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def agree(want: Any, got: Any, tolerance: float, where: object) -> int:
    """1 if the values agree (for counting), else an AssertionError."""
    want, got = number(want), number(got)
    if math.isnan(want) or math.isinf(want):
        assert not math.isfinite(got), (where, want, got)
    else:
        assert abs(want - got) <= tolerance * max(1.0, abs(want)), (where, want, got)
    return 1


def agree_all(want: dict[str, Any], got: dict[str, Any], tolerance: float, where: object) -> int:
    return sum(agree(value, got[key], tolerance, (where, key)) for key, value in want.items())


def leaves(value: Any) -> int:
    if isinstance(value, dict):
        return sum(leaves(v) for v in value.values())
    if isinstance(value, list):
        return sum(leaves(v) for v in value)
    return 1


def test_the_pairs_are_the_ones_that_were_scored() -> None:
    row = rows()["pub_20_dilate_tiny"]
    voxels = np.ascontiguousarray(read_volume(GOLDEN / row["pred"]).array.astype(np.uint8))
    assert hashlib.sha256(voxels.tobytes()).hexdigest() == row["pred_sha256"]


def test_kits23(run: Any) -> None:
    result, seen = run("kits23"), 0
    assert not result["failures"]
    for name, pair in expected()["pairs"].items():
        for region, metrics in pair["kits23"].items():
            got = result["cases"][name][region]
            seen += agree(metrics["dice"], got["dice"], EXACT, (name, region))
            seen += agree(metrics["surface_dice"], got["surface_dice"], SURFACE, (name, region))
    assert seen == sum(leaves(pair["kits23"]) for pair in expected()["pairs"].values())
    aggregate = expected()["aggregate"]
    for region, metrics in aggregate["kits23_average"].items():
        means = {metric: result["mean"][region][metric]["value"] for metric in metrics}
        agree_all(metrics, means, EXACT, region)
    pooled = result["pooled"]["all_regions"]
    agree(aggregate["kits23_mean_dice"], pooled["mean_dice"]["value"], EXACT, "mean dice")
    agree(aggregate["kits23_mean_surface_dice"], pooled["mean_surface_dice"]["value"], EXACT, "mean surface dice")
    assert any("pub_06_wrong_header_spacing" in text and "spacing" in text for text in result["warnings"])
    assert any("pub_07_label_out_of_range" in text and "[4]" in text for text in result["warnings"])
    assert len(kits_means(result)) == 6


def test_kits21_is_kits23(run: Any) -> None:
    assert run("kits21")["cases"] == run("kits23")["cases"]


def test_kits19(run: Any) -> None:
    seen = 0
    for protocol, key in (("kits19", "kits19"), ("kits19-raw", "kits19_raw_labels")):
        result = run(protocol)
        for name, pair in expected()["pairs"].items():
            seen += agree_all(pair[key], result["cases"][name]["kits19"], EXACT, (protocol, name))
    pairs = expected()["pairs"].values()
    assert seen == sum(leaves(pair["kits19"]) + leaves(pair["kits19_raw_labels"]) for pair in pairs)
    want, got = dict(expected()["aggregate"]["kits19_mean_over_non_nan_cases"]), run("kits19")["pooled"]["kits19"]
    assert got["composite"]["n"] == want.pop("n")
    agree_all(want, {metric: got[metric]["value"] for metric in want}, EXACT, "kits19 mean")


def test_nnunet(run: Any) -> None:
    result, seen = run("nnunet"), 0
    for name, pair in expected()["pairs"].items():
        for key, metrics in pair["nnunet"].items():
            seen += agree_all(metrics, result["cases"][name][key], EXACT, (name, key))
    assert seen == sum(leaves(pair["nnunet"]) for pair in expected()["pairs"].values())
    for group in ("labels", "regions"):
        want = expected()["aggregate"][f"nnunet_{group}"]
        for key, metrics in want["mean"].items():
            got = {metric: estimate["value"] for metric, estimate in result["mean"][key].items()}
            agree_all(metrics, got, EXACT, key)
        pooled = result["pooled"][f"foreground_mean_{group}"]
        agree_all(want["foreground_mean"], {metric: e["value"] for metric, e in pooled.items()}, EXACT, group)


def test_surface_and_voxelwise_values() -> None:
    def score(name: str) -> dict[str, dict[str, float]]:
        truth, prediction = (read_volume(GOLDEN / rows()[name][side]) for side in ("gt", "pred"))
        voxels = np.where(prediction.array > 3, 0, prediction.array).astype(np.uint8)  # the reference ignores label 4
        return score_case(truth, truth.with_array(voxels), "plain")  # and takes the reference's spacing

    names = list(expected()["pairs"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scores = dict(zip(names, pool.map(score, names), strict=True))
    seen = 0
    for name, pair in expected()["pairs"].items():
        for region in pair["surface"]:
            got = scores[name][region]
            for metric, want in pair["surface"][region].items():
                seen += agree(want, got[metric], DISTANCE if "medpy" in metric else SURFACE, (name, region, metric))
            if not pair["surface"][region]:
                assert math.isnan(got["nsd_1mm"]) and math.isnan(got["medpy_hd95_mm"])
            seen += agree_all(pair["voxelwise"][region], got, EXACT, (name, region))
    pairs = expected()["pairs"].values()
    assert seen == sum(leaves(pair["surface"]) + leaves(pair["voxelwise"]) for pair in pairs)


def agree_lits(want: dict[str, Any], got: dict[str, Any], where: str) -> int:
    """One run of the scorer against region -> metric -> value."""
    seen = 0
    for threshold, counts in want["detection_counts"].items():
        flat = {f"{cell}_{threshold}": n for cell, n in counts.items()}
        seen += agree_all(flat, got["detection_counts"], EXACT, where)
    for region, sums in want["dice_global_sums"].items():
        seen += agree_all({f"{region}_{k}": v for k, v in sums.items()}, got["dice_global_sums"], EXACT, where)
    seen += agree_all(want["detection"], got["detection"], EXACT, where)
    for region in ("lesion", "liver"):
        for metric, value in want[region].items():
            tolerance = DISTANCE if metric in ("assd", "rmsd", "msd") else EXACT
            seen += agree(value, got[region][metric], tolerance, (where, region, metric))
    for metric in ("tumor_burden_rmse", "tumor_burden_max"):
        seen += agree(want[metric], got["tumor_burden"][metric], EXACT, (where, metric))
    return seen


def agree_objects(want: dict[str, list[float]], got: list[dict[str, float]], where: str) -> int:
    assert all(len(values) == len(got) for values in want.values()), where
    return sum(
        agree(value, item[metric], DISTANCE if metric in ("assd", "rmsd", "msd") else EXACT, (where, metric))
        for metric, values in want.items()
        for value, item in zip(values, got, strict=True)
    )


def test_lits(run: Any) -> None:
    result, seen, crashed = run("lits"), 0, 0
    for name, pair in expected()["pairs"].items():
        want, got = pair["lits"], result["cases"][name]
        if "official_error" in want:
            crashed += 1
            assert any("holds no lesion" in text for text in result["warnings"])
            assert got["detection_counts"]["TP_0"] == 0
            continue
        seen += agree_lits(want, got, name)
        seen += agree_objects(want["lesion_per_object"], result["lesions"][name]["lesion"]["detected"], name)
        seen += agree(want["tumor_burden_diff"][0], got["tumor_burden"]["tumor_burden_diff"], EXACT, name)
    assert seen + crashed == sum(leaves(pair["lits"]) for pair in expected()["pairs"].values())


def test_lits_pooled(run: Any) -> None:
    result, want = run("lits", "lits"), dict(expected()["aggregate"]["lits_pooled"])
    pooled = {region: {m: e["value"] for m, e in metrics.items()} for region, metrics in result["pooled"].items()}
    seen = agree_lits(want, pooled, "pooled")
    members = want["members"]
    objects = [item for name in members for item in result["lesions"][name]["lesion"]["detected"]]
    seen += agree_objects(want["lesion_per_object"], objects, "pooled")
    for name, value in zip(members, want["tumor_burden_diff"], strict=True):
        seen += agree(value, result["cases"][name]["tumor_burden"]["tumor_burden_diff"], EXACT, name)
    assert seen + len(members) == leaves(want)


def test_rankings() -> None:
    for table in expected()["ranking"]:
        standings = rank_teams({row["team"]: row["values"] for row in table["summary"]})
        got = [
            {
                "team_name": s.team,
                "final_rank": str(s.final_rank),
                "mean_rank": f"{s.mean_rank:.4f}",
                "mean_dice": f"{s.mean_dice:.8f}",
                "mean_sd": f"{s.mean_surface_dice:.8f}",
                "tumor_dice": f"{s.tumor_dice:.8f}",
            }
            for s in standings
        ]
        assert got == table["expected"], table["name"]


def test_nothing_of_the_file_is_left_out() -> None:
    assert set(expected()) == {"conventions", "pairs", "aggregate", "ranking", "versions"}
    parts = {"kits23", "kits19", "kits19_raw_labels", "nnunet", "surface", "voxelwise", "lits"}
    assert all(set(pair) == parts for pair in expected()["pairs"].values())
    assert set(expected()["aggregate"]) == {
        "kits23_average",
        "kits23_mean_dice",
        "kits23_mean_surface_dice",
        "nnunet_labels",
        "nnunet_regions",
        "kits19_mean_over_non_nan_cases",
        "lits_pooled",
    }
