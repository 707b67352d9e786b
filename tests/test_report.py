"""Pages: complete in themselves, escaped, and whole when parts are missing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hilum
from hilum.errors import InputError, OutputError
from hilum.labels import SCHEMES
from hilum.pages import strings, tables, units
from hilum.pages.case import case_report
from hilum.pages.case_lines import followup_lines, lesion_line
from hilum.pages.evaluation import evaluation_report
from hilum.pages.run import run_report
from hilum.pages.writing import unbroken
from hilum.results.measure import measure
from hilum.volume import Volume

KITS = SCHEMES["kits"]
EVIL = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """Tags that are open, texts, and everything that points somewhere."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, Any]] = []
        self.links: list[str] = []
        self.scripts = 0
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        table = dict(attrs)
        self.scripts += tag == "script"
        self.links += [value for key, value in attrs if key in ("src", "href", "xlink:href", "srcset") and value]
        if tag == "img":
            self.images.append(table)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)
    assert "url(http" not in text and "@import" not in text
    page = Page(text)
    assert all(link.startswith(("data:", "#")) or link == "validation/report.html" for link in page.links)
    assert all(image["alt"] and int(image["width"]) > 0 for image in page.images)
    assert "not a medical device; not for diagnosis" in page.text and hilum.__version__ in page.text
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text and "@media print" in text
    return page


def case() -> tuple[Volume, Volume]:
    """A small body with two kidneys and a tumour in the left one."""
    affine = np.array([[0, 0, -4.0, 120], [0, -4.0, 0, 0], [6.0, 0, 0, 0], [0, 0, 0, 1]])
    scan = np.full((16, 40, 60), -1000, np.int16)
    scan[:, 4:36, 4:56] = 40
    labels = np.zeros(scan.shape, np.uint8)
    labels[4:12, 14:24, 8:18] = 1
    labels[4:12, 14:24, 42:52] = 1
    labels[6:10, 15:20, 44:49] = 2
    header = {"manufacturer": EVIL, "patient_name": "Jane Roe", "kvp": 120.0}
    return Volume(scan, affine, "/home/somebody/ct.nii.gz", header), Volume(labels, affine, "labels.nii.gz")


def test_a_case_page_has_everything(tmp_path: Path) -> None:
    scan, labels = case()
    table = measure(labels, KITS, scan)
    table["warnings"].append(f"Beware of {EVIL}.")
    out = tmp_path / "case <1>" / "report.html"
    scores = {"tumor": {"dice": 0.91234, "hd95_mm": None}}
    made = case_report(
        out,
        scan,
        labels,
        table,
        KITS,
        model_card={"name": EVIL, "training": {"cases": 12, "data": ["a", "b"]}},
        truth=labels,
        scores=scores,
        run={"hilum": "0.1.0", "seconds": {"predict": 1.5}},
    )
    assert made == out
    page = read(out)
    assert "case <1>" in page.text and page.scripts == 2  # the scene and what turns it
    assert "Two kidneys" in page.text and "one tumour in the left kidney, " in page.text
    assert f"Beware of {EVIL}." in page.text and "Jane Roe" not in page.text and "/home" not in page.text
    assert len(page.images) == 3 * 4 + 3 + 1  # three planes four ways, the lesion in three planes, the surfaces
    for text in (
        "Organs",
        "Lesions",
        "Right kidney",
        "Overlay",
        "missed",
        "0.912",
        "Training cases",
        "Seconds predict",
    ):
        assert text in page.text
    assert out.stat().st_size < 3_000_000


def test_a_case_page_without_scan_model_truth_or_lesions(tmp_path: Path) -> None:
    _, labels = case()
    plain = labels.with_array(np.minimum(labels.array, 1))
    page = read(case_report(tmp_path / "report.html", None, plain, measure(plain, KITS), KITS, name="Anna's case"))
    assert "Anna's case" in page.text and "no lesion was found" in page.text and "HU</td>" not in page.text
    assert len(page.images) == 3 + 1 and "Density" not in page.text
    nothing = labels.with_array(np.zeros_like(labels.array))
    page = read(case_report(tmp_path / "empty.html", None, nothing, measure(nothing, KITS), KITS))
    assert "Nothing was found" in page.text and "The label map is empty." in page.text


def test_many_lesions_are_all_listed_and_the_largest_drawn(tmp_path: Path) -> None:
    labels = np.zeros((4, 40, 40), np.uint8)
    labels[:, 1:39, 1:39] = 1
    for n in range(16):
        y, x = 3 + 9 * (n // 4), 3 + 9 * (n % 4)
        labels[1:3, y : y + 2 + n % 4, x : x + 3] = 2
    volume = Volume(labels, np.diag([-2.0, -2.0, 2.0, 1.0])[:, [2, 1, 0, 3]])
    page = read(case_report(tmp_path / "report.html", None, volume, measure(volume, KITS), KITS))
    assert len(page.images) == 3 + 1 + 3 * 12 and "4 more in the table" in page.text
    assert page.text.count("Axial, slice") == 12 + 1


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    _, labels = case()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        case_report(tmp_path / "file" / "report.html", None, labels, measure(labels, KITS), KITS)


def scores() -> dict[str, Any]:
    """An evaluation of four cases, one value undefined, one case failed."""
    dice = {"case_a": 0.95, "case_b": 0.5, "case_c": 0.8, EVIL: 0.7}
    cases = {n: {"kidney_and_mass": {"dice": v, "hd95_mm": 10 * v}, "tumor": {"dice": v / 2}} for n, v in dice.items()}
    cases["case_b"]["kidney_and_mass"]["hd95_mm"] = None  # type: ignore[assignment]
    return {
        "protocol": "kits23",
        "scheme": "kits",
        "empty_policy": "both empty is 1",
        "intervals": {"level": 0.95, "method": "percentile bootstrap by patient"},
        "cases": cases,
        "mean": {
            "kidney_and_mass": {
                "dice": {"value": 0.7375, "low": 0.6, "high": 0.9, "n": 4},
                "hd95_mm": {"value": 8.2, "low": None, "high": None, "n": 3},
            },
            "tumor": {"dice": {"value": 0.36875, "low": 0.3, "high": 0.45, "n": 4}},
        },
        "pooled": {"tumor": {"dice": {"value": 0.4, "low": 0.3, "high": 0.5, "n": 4}}},
        "audit": {"findings": [{"kind": "bimodal", "text": f"the mean hides {EVIL}", "cases": [EVIL]}], "mean_iou": {}},
        "reasons": {"case_b/kidney_and_mass/hd95_mm": "the prediction is empty"},
        "warnings": ["case_d: no prediction; left out"],
        "failures": {"case_e": f"cannot be read {EVIL}"},
    }


def log_lines() -> str:
    lines: list[dict[str, Any]] = [{"facts": {"device": "cpu"}}]
    for step in range(0, 50, 10):
        dice = {"kidney": 0.01 * step, "tumour": None}
        lines.append(
            {"epoch": 1, "step": step, "loss": 1 / (1 + step), "lr": 0.01, "data_wait": 0.02, "patch_dice": dice}
        )
    lines.insert(3, {"resumed": {}, "step": 15})
    return "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 60, "lo'


def test_an_evaluation_page_has_tables_charts_and_pictures(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(scores()), encoding="utf-8")
    (tmp_path / "log.jsonl").write_text(log_lines(), encoding="utf-8")
    scan, labels = case()
    asked: list[str] = []

    def pictures(name: str) -> tuple[Volume, Volume, Volume]:
        asked.append(name)
        return scan, labels, labels.with_array(np.roll(labels.array, 1, axis=2))

    made = evaluation_report(tmp_path, pictures=pictures, log=tmp_path / "log.jsonl")
    page = read(made)
    assert made == tmp_path / "report.html" and page.scripts == 1
    assert asked == ["case_a", EVIL, "case_b"]  # best, median, worst
    assert len(page.images) == 3 * 3 * 4
    for text in (
        "4 cases; mean Dice",
        "both empty is 1",
        "0.738",
        "(0.600–0.900)",
        "8.2",
        "n=3",
        "Median case",
        "Loss",
    ):
        assert text in page.text, text
    assert "What the means do not say" in page.text and f"the mean hides {EVIL}" in page.text
    assert EVIL in page.text and f"cannot be read {EVIL}" in page.text and "no prediction; left out" in page.text
    text = made.read_text(encoding="utf-8")
    assert 'title="the prediction is empty"' in text and text.count("<svg") == 4
    assert "aria-sort" in text


def test_an_evaluation_page_needs_only_its_scores(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"protocol": "plain", "cases": {}, "mean": {}}), encoding="utf-8")
    page = read(evaluation_report(tmp_path))
    assert "0 cases." in page.text and not page.images
    (tmp_path / "scores.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="no scores"):
        evaluation_report(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        evaluation_report(tmp_path / "elsewhere")


def test_a_run_page_shows_the_curves_the_plan_and_the_held_out_scores(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(log_lines(), encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(f"description = {EVIL!r}\n", encoding="utf-8")
    (tmp_path / "model").mkdir()
    plan = {"dims": 3, "patch": [16, 64, 64], "normalisation": {"kind": "ct", "low": -50.0}}
    (tmp_path / "model" / "model.json").write_text(json.dumps({"plan": plan, "card": {"name": "x"}}), encoding="utf-8")
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "scores.json").write_text(json.dumps(scores()), encoding="utf-8")
    evaluation_report(tmp_path / "validation")
    page = read(run_report(tmp_path))
    for text in (
        "40 steps, last loss",
        "Learning rate",
        "Waiting for data",
        "16 × 64 × 64",
        "0.738",
        "Normalisation low",
    ):
        assert text in page.text, text
    assert "validation/report.html" in page.links and "device" in page.text.lower()
    (tmp_path / "alone").mkdir()
    with pytest.raises(InputError, match="no training run"):
        run_report(tmp_path / "alone")
    (tmp_path / "alone" / "log.jsonl").write_text(log_lines(), encoding="utf-8")
    assert "Loss" in read(run_report(tmp_path / "alone")).text


def organ(name: str, side: str, volume_ml: float, cut: bool = False) -> dict[str, Any]:
    return {"name": name, "side": side, "volume_ml": volume_ml, "cut_by_field_of_view": cut}


def lesion(label: str, side: str, organ: str, long_axis_mm: float) -> dict[str, Any]:
    return {"label": label, "side": side, "organ": organ, "long_axis_mm": long_axis_mm}


@pytest.mark.parametrize(
    ("organs", "lesions", "sentence"),
    [
        (
            [organ("kidney", "right", 184.2), organ("kidney", "left", 170.6)],
            [lesion("tumour", "left", "kidney", 34.4)],
            "Two kidneys, 184 mL right and 171 mL left; one tumour in the left kidney, 34 mm.",
        ),
        (
            [organ("liver", "", 1500.0, cut=True)],
            [lesion("tumour", "", "liver", 12.0), lesion("tumour", "", "liver", 40.0)],
            "Liver at least 1500 mL; two tumours in the liver, the largest 40 mm.",
        ),
        ([organ("kidney", "left", 190.0)], [], "One kidney, on the left, 190 mL; no lesion was found."),
        ([], [lesion("cyst", "right", "kidney", 8.0)], "One cyst in the right kidney, 8 mm."),
        ([], [], "Nothing was found in this scan."),
    ],
)
def test_the_sentence_is_plain_english(organs: list[Any], lesions: list[Any], sentence: str) -> None:
    assert strings.summary({"organs": organs, "lesions": lesions}) == sentence


def test_numbers_and_names_read_well() -> None:
    assert strings.number(None) == strings.number(float("nan")) == "–"
    assert strings.number(-0.5, 1) == "−0.5" and strings.number(3) == "3" and strings.number(True) == "yes"
    assert strings.metric_name("nsd_2mm") == "NSD 2 mm" and strings.metric_name("hd95_mm") == "HD95 (mm)"
    assert strings.metric_name("volume_gt_ml") == "Volume truth (mL)" and strings.metric_name("Dice") == "Dice"
    assert strings.score("TP", 123456.0) == "123456" and strings.score("dice", 1.0) == "1.000"
    assert strings.score("hd95_mm", 8.25) == "8.2" and strings.score("dice", None) == "–"
    assert strings.region_name("kidney_and_mass") == "Kidney and mass"
    assert strings.counted(1, "biopsy") == "one biopsy" and strings.counted(12, "biopsy") == "12 biopsies"
    assert strings.facts({"a_b": {"c": [1, 2.5]}, "none": None, "long": "x" * 500})[0] == ("A b c", "1 × 2.5")
    assert len(strings.facts({"long": "x" * 500})[0][1]) == 240


def test_cases_are_ranked_by_overlap() -> None:
    metric, ranked = tables.ranking(scores())
    assert metric == "dice" and [name for name, _ in ranked] == ["case_a", "case_c", EVIL, "case_b"]
    assert [x[0] for x in tables.shown_cases(ranked)] == ["Best case", "Median case", "Worst case"]
    assert tables.shown_cases(ranked[:1]) == [("The case", "case_a", ranked[0][1])]
    assert tables.shown_cases([]) == []


def test_a_long_table_shows_what_tells_most_and_folds_the_rest() -> None:
    cell = {"value": 0.5, "low": None, "high": None, "n": 3}
    many = {"tumor": {**{f"metric_{n}": cell for n in range(20)}, "Dice": cell, "nsd_2mm": cell}}
    first, rest = tables.estimate_tables(many)
    assert [line["name"] for line in first["lines"]] == ["Dice", "NSD 2 mm"]
    assert rest is not None and len(rest["lines"]) == 20
    few, nothing = tables.estimate_tables({"tumor": {"x": cell}})
    assert len(few["lines"]) == 1 and nothing is None


def test_a_screen_reader_is_told_what_is_where(tmp_path: Path) -> None:
    scan, labels = case()
    case_report(tmp_path / "report.html", scan, labels, measure(labels, KITS, scan), KITS, truth=labels)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<html lang="en">' in text and not re.findall(r"<th\b(?![^>]*\bscope=)[^>]*>", text)
    named = re.findall(r'aria-labelledby="([^"]+)"', text)
    assert len(named) >= 6 and all(text.count(f'id="{name}"') == 1 for name in named)
    assert re.search(r'data-label="Organ surfaces that can be turned\. Surfaces seen from the front[^"]*tumour 1', text)
    levels = [int(n) for n in re.findall(r"<h([1-6])\b", text)]
    assert levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) <= 1


def test_a_number_stays_with_its_unit() -> None:
    html = '<p title="3 mm">12 mm and 3 % of 4 mL, 5 cats</p><style>a { top: 0 3 % }</style><script>x = 3 % 2;</script>'
    made = unbroken(html)
    assert "12\u00a0mm and 3\u00a0% of 4\u00a0mL, 5 cats" in made and made.replace("\u00a0", " ") == html
    assert 'title="3 mm"' in made and "x = 3 % 2;" in made and "0 3 %" in made


@pytest.mark.parametrize(
    ("targets", "reason", "sums"),
    [
        ([1], "sum of diameters 38.7 mm, then 47.0 mm (+21 %)", ""),
        ([1], "new tumour of at least 10 mm: lesion 3", "Sum of target diameters: 39 mm, now 47 mm."),
        ([], "no tumour of the earlier date is large enough to be a target", ""),
    ],
)
def test_sums_of_diameters_are_told_once(targets: list[int], reason: str, sums: str) -> None:
    recist = {"target_ids": targets, "sum_before_mm": 38.7, "sum_now_mm": 47.0, "reason": reason}
    follow = {"matched": [], "new_ids": [], "vanished": [], "registration": [], "recist": recist}
    lines = followup_lines(follow, [])
    assert lines is not None and lines["sums"] == sums
    assert units.percent(0.3) == "0 %" == units.percent(-0.2) and units.percent(-1.2) == "−1 %"


@pytest.mark.parametrize(("mm", "text"), [(40.3, "40.3 × 31 mm"), (39.7, "39.7 × 31 mm"), (41.2, "41 × 31 mm")])
def test_a_rounded_axis_does_not_contradict_its_stage(mm: float, text: str) -> None:
    _, labels = case()
    (lesion,) = measure(labels, KITS)["lesions"]
    line = lesion_line({**lesion, "long_axis_mm": mm, "short_axis_mm": 31.2}, KITS, None)
    assert line["axes"] == text
