"""A data set in numbers: worked volumes and lesions, bad cases, what was read before, the page; real scans and maps."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hilum.cli import main
from hilum.errors import UsageError
from hilum.labels import SCHEMES
from hilum.pages.strips import strip_of
from hilum.phantom import write_set
from hilum.survey.describing import HU, PERCENTILES, ball_mm, hu_facts, label_facts
from hilum.survey.explore import explore, strip_size
from hilum.volume import Volume
from making_cases import SHAPE, SPACING, body, write, write_lits

REAL = Path(__file__).parents[2] / "shared" / "data"
LAYOUTS = {k: k for k in ("folder", "kits23", "lits", "msd", "ircadb")} | {"dicom": "folder", "nnunet": "phantom"}


def look(root: Path, out: Path, kind: str = "lits", **options: Any) -> dict[str, Any]:
    return explore(kind, root, out, workers=1, **options)


def test_percentiles_are_the_sorted_voxels() -> None:
    rng = np.random.default_rng(1)
    array = rng.integers(-1024, 3000, (7, 11, 13)).astype(np.int16)
    facts = hu_facts(array, "")
    ordered = np.sort(array.ravel())
    wanted = [ordered[int(np.ceil(p / 100 * array.size)) - 1] for p in PERCENTILES]
    assert [facts[name] for name in HU[1:10]] == wanted
    assert (facts["hu_min"], facts["hu_max"]) == (array.min(), array.max())
    assert facts["hu_mean"] == pytest.approx(array.mean(), abs=0.01)
    assert facts["hu_sd"] == pytest.approx(array.std(), abs=0.01)
    assert hu_facts(array.astype(np.float32) + 0.25, "x_")["x_hu_min"] == array.min() + 0.25


def test_volumes_and_lesions_are_counted() -> None:
    array = np.zeros((10, 12, 14), np.uint8)
    array[1:9, 1:11, 1:13] = 1
    array[2:4, 2:4, 2:4] = 2  # 8 voxels
    array[6:8, 6:9, 6:8] = 2  # 12 voxels
    array[8, 10, 12] = 2  # a speck of one voxel
    array[5, 3, 9:12] = 3
    facts, lesions = label_facts(Volume(array, np.diag([10.0, 5.0, 2.0, 1.0])), SCHEMES["kits"])
    assert facts["tumour_ml"] == pytest.approx(2.1) and facts["tumour_count"] == 2
    assert facts["tumour_largest_ml"] == pytest.approx(1.2) and facts["cyst_count"] == 1
    assert facts["kidney_ml"] == pytest.approx((8 * 10 * 12 - 24) * 0.1) and facts["labelled_slices"] == 8
    assert [lesion["ml"] for lesion in lesions] == [1.2, 0.8, 0.3] and lesions[2]["label"] == "cyst"
    assert lesions[0]["diameter_mm"] == pytest.approx((6 * 1200 / np.pi) ** (1 / 3), abs=0.01)
    assert ball_mm(4 / 3 * np.pi) == pytest.approx(20.0)


def test_tables_say_what_the_files_hold(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        write_lits(tmp_path / "set", number)
    report = look(tmp_path / "set", tmp_path / "out")
    hu, labels = body(1)
    facts = report["cases"][1]["facts"]
    assert (facts["slices"], facts["rows"], facts["columns"]) == (SHAPE[2], SHAPE[1], SHAPE[0])
    assert (facts["slice_mm"], facts["row_mm"], facts["width_mm"]) == (SPACING[2], SPACING[1], SHAPE[0] * SPACING[0])
    assert facts["hu_max"] == hu.max() and facts["liver_ml"] == pytest.approx((labels == 1).sum() * 0.64)
    assert facts["labelled_hu_mean"] == pytest.approx(hu[labels > 0].mean(), abs=0.01)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "explore.csv").read_text())))
    assert [row["case"] for row in rows] == ["volume-0", "volume-1", "volume-2"]
    assert float(rows[1]["liver_ml"]) == facts["liver_ml"] and rows[1]["image"].endswith("volume-1.nii")
    lesions = list(csv.DictReader(io.StringIO((tmp_path / "out" / "lesions.csv").read_text())))
    assert len(lesions) == sum(len(case["lesions"]) for case in report["cases"]) > 0
    assert report["facts"]["liver_ml"]["n"] == 3
    assert json.loads((tmp_path / "out" / "explore.json").read_text()) == report


def test_cases_are_chosen_and_bad_ones_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1, 2):
        write_lits(tmp_path / "set", number)
    (tmp_path / "set" / "volume-2.nii").write_bytes(b"no scan")
    words = ["data", "explore", f"lits={tmp_path / 'set'}", "--out", str(tmp_path / "out"), "--workers", "1", "--quiet"]
    assert main([*words, "--where", "case == 'volume-1' and slices == 16"]) == 1
    text = capsys.readouterr().out
    assert "1 of 3 cases" in text and "failed: volume-2" in text
    rows = (tmp_path / "out" / "explore.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith("volume-1,")
    assert main([*words, "--where", "slcies == 16"]) == 2
    assert "wanted slices" in capsys.readouterr().err
    write_lits(tmp_path / "set", 2)
    assert main(words) == 0


def test_what_was_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1):
        write_lits(tmp_path / "set", number)
    first = look(tmp_path / "set", tmp_path / "out")
    monkeypatch.setattr("hilum.survey.describing.read_scan", lambda path: pytest.fail(f"read {path} again"))
    assert look(tmp_path / "set", tmp_path / "out") == first
    assert look(tmp_path / "set", tmp_path / "out", where="slices > 3")["summary"]["shown"] == 2


def test_out_may_not_lie_in_the_data(tmp_path: Path) -> None:
    write_lits(tmp_path / "set", 0)
    with pytest.raises(UsageError, match="lies in the data set"):
        look(tmp_path / "set", tmp_path / "set" / "out")


def test_the_page_carries_everything_and_escapes_names(tmp_path: Path) -> None:
    rows = []
    for seed, name in enumerate(("<b>one<|script>", "two")):
        hu, labels = body(seed)
        write(tmp_path / "set" / f"{seed}_ct.nii.gz", hu)
        write(tmp_path / "set" / f"{seed}_map.nii.gz", labels)
        rows.append({"image": f"{seed}_ct.nii.gz", "label": f"{seed}_map.nii.gz", "case": name})
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(rows))
    (tmp_path / "set" / "labels.json").write_text('"lits"')
    look(tmp_path / "set", tmp_path / "out", "folder")
    page = (tmp_path / "out" / "explore.html").read_text()
    assert "<b>one" not in page and 'id="slice"' in page and page.count("<svg") >= 1
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    strips = json.loads(re.search(r'id="strips">(.*?)</script>', page, re.S).group(1))  # type: ignore[union-attr]
    assert [strip["case"] for strip in strips] == ["<b>one<|script>", "two"]
    assert look(tmp_path / "set", tmp_path / "bare", "folder", slices=0)["summary"]["shown"] == 2
    assert 'id="slice"' not in (tmp_path / "bare" / "explore.html").read_text()


def test_a_strip_shows_the_slices_that_it_names() -> None:
    hu, labels = body()
    affine = np.diag([8.0, 8.0, 10.0, 1.0])
    strip = strip_of(Volume(hu, affine), Volume(labels, affine), SCHEMES["lits"], 6, 64)
    assert len(strip["slices"]) == 6 and max(strip["width"], strip["height"]) <= 64
    picture = Image.open(io.BytesIO(base64.b64decode(strip["labels"].split(",")[1])))
    tiles = np.asarray(picture).reshape(6, strip["height"], strip["width"])
    tumour = (labels == 2).sum(axis=(0, 1))
    assert strip["slices"][strip["start"]] in np.flatnonzero(tumour == tumour.max())
    for place, index in enumerate(strip["slices"]):
        assert (2 in tiles[place]) == bool(tumour[index]) or tumour[index] < 3
    ct = Image.open(io.BytesIO(base64.b64decode(strip["ct"].split(",")[1])))
    assert ct.size == picture.size == (strip["width"], 6 * strip["height"])


def test_strips_shrink_as_cases_grow() -> None:
    sizes = [strip_size(cases, None) for cases in (1, 100, 300, 1000, 5000)]
    assert sizes == sorted(sizes, reverse=True) and strip_size(5, 0)[0] == 0


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_of_the_phantom(kind: str, tmp_path: Path) -> None:
    write_set(tmp_path / "set", 1, 3, layout=kind, shape=(48, 40, 24), spacing_mm=(8.0, 8.0, 8.0), workers=1)
    report = look(tmp_path / "set", tmp_path / "out", LAYOUTS[kind])
    (case,) = report["cases"]
    assert not report["summary"]["failed"] and case["facts"]["slices"] == 24 and case["facts"]["labelled_ml"] > 100


@pytest.mark.skipif(not (REAL / "real").is_dir(), reason="../shared/data/real is absent")
def test_a_real_scan(tmp_path: Path) -> None:
    report = look(REAL / "real" / "totalsegmentator_ct", tmp_path, "folder", scheme=SCHEMES["abdomen"])
    facts = report["cases"][0]["facts"]
    assert (facts["hu_min"], facts["hu_max"], facts["slices"]) == (-1207, 3382, 112)
    assert facts["right_kidney_ml"] == pytest.approx(193, abs=1) and facts["liver_ml"] == pytest.approx(1126, abs=1)


@pytest.mark.skipif(not (REAL / "kits23_labels").is_dir(), reason="../shared/data/kits23_labels is absent")
def test_real_label_maps_alone(tmp_path: Path) -> None:
    for name in ("case_00011.nii.gz", "case_00002.nii.gz"):
        (tmp_path / "maps").mkdir(exist_ok=True)
        (tmp_path / "maps" / name).symlink_to(REAL / "kits23_labels" / name)
    report = look(tmp_path / "maps", tmp_path / "out", "kits23", labels_only=True, where="tumour_ml > 50")
    (case,) = report["cases"]
    assert case["case"] == "case_00011" and case["facts"]["tumour_ml"] == pytest.approx(56.42, abs=0.01)
    assert case["facts"]["axes"] == "IPL" and case["facts"]["slices"] == 80
