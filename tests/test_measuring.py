"""Many label maps at once: bad ones listed, done ones left, dates followed; schema, pages of many cases, PDF."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import hilum
from hilum.cli import main
from hilum.errors import GeometryError, UsageError
from hilum.files import read_json, write_json
from hilum.labels import SCHEMES
from hilum.pages import pdf as pdf_module
from hilum.pages.cohort import FEW, cohort_report, in_order, oddness
from hilum.pages.meshes import surface
from hilum.phantom import make_case
from hilum.pipeline import measure_files
from hilum.pipeline.redrawing import case_folders, redraw_cases
from hilum.results.everything import Earlier, measure_all
from hilum.scans import write_labels, write_scan
from hilum.volume import Grid, Volume

KITS = SCHEMES["kits"]
SCHEMA = Path(hilum.__file__).parent / "results" / "schema" / "measurements.schema.json"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """labels/a, b (with scans), labels/bad (an unknown label), labels/none (empty)."""
    root = tmp_path_factory.mktemp("cases")
    for name, seed in (("a", 1), ("b", 2)):
        case = make_case(seed, small=True)
        write_labels(root / "labels" / f"{name}.nii.gz", case.labels)
        write_scan(root / "scans" / f"{name}.nii.gz", case.ct)
    write_labels(root / "labels" / "bad.nii.gz", case.labels.with_array(case.labels.array * np.uint8(40)))
    write_labels(root / "labels" / "none.nii.gz", case.labels.with_array(np.zeros_like(case.labels.array)))
    return root


def valid(table: Any) -> None:
    Draft202012Validator(read_json(SCHEMA)).validate(table)


def test_the_schema_is_one_and_holds_real_tables() -> None:
    Draft202012Validator.check_schema(read_json(SCHEMA))
    case = make_case(2, small=True)
    first = measure_all(case.labels, KITS, case.ct)
    valid(json.loads(json.dumps(first)))
    shares = {"tumour": case.labels.with_array((case.labels.array == 2) * np.uint8(200))}
    second = measure_all(
        case.labels, KITS, case.ct, probabilities=shares, earlier=Earlier(case.labels, first, 30.0, "first")
    )
    valid(json.loads(json.dumps(second)))
    assert second["uncertainty"] and second["followup"]["matched"]
    valid(json.loads(json.dumps(measure_all(case.labels, KITS, folds=[case.labels]))))
    empty = case.labels.with_array(np.zeros_like(case.labels.array))
    valid(json.loads(json.dumps(measure_all(empty, KITS))))
    for spoilt in ({"format": 1}, {"organs": {}}, {"lesions": [{"id": 0}]}, {"quality": None}):
        with pytest.raises(Exception, match=r"."):
            valid({**first, **spoilt})


def test_many_are_measured_bad_ones_listed_and_done_ones_left(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = measure_files([str(cases / "labels")], "kits", out, workers=2)
    assert set(first.done) == {"a", "b", "none"} and first.exit_code == 1
    assert "holds labels that scheme 'kits' does not know" in first.failed["bad"]
    assert first.done["none"]["quality"]["why"] == ["No organ was found."] and "1 failed" in first.text()
    page = (out / "summary.html").read_text(encoding="utf-8")
    assert page.count('<tr class="look"') == sum(t["quality"]["look"] for t in first.done.values())
    assert page.count("data:image/jpeg") == 3 and "does not know" in page and "a/report.html" in page
    rows = (out / "summary.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("case,look,why,oddness,lesions") and rows[1].startswith("none,1,No organ was found.")
    assert len((out / "measurements.csv").read_text(encoding="utf-8").splitlines()) == 4
    stamps = {name: (out / name / "report.html").stat().st_mtime_ns for name in first.done}
    (out / "b" / "report.html").unlink()
    again = measure_files([str(cases / "labels")], "kits", out, workers=1)
    assert again.skipped == ("a", "none") and set(again.done) == set(first.done)
    assert (out / "a" / "report.html").stat().st_mtime_ns == stamps["a"]
    assert again.done["a"] == first.done["a"]
    third = measure_files([str(cases / "labels" / "a.nii.gz")], "kits", out, margin_mm=10.0)
    scores = [x["renal"]["resection"] for x in third.done["a"]["lesions"] if x["renal"]]
    before = [x["renal"]["resection"] for x in first.done["a"]["lesions"] if x["renal"]]
    assert scores and all(x["margin_mm"] == 10 for x in scores)
    assert all(x["healthy_ml"] > y["healthy_ml"] for x, y in zip(scores, before, strict=True) if x["value"])
    with pytest.raises(UsageError, match="margin"):
        measure_files([str(cases / "labels" / "a.nii.gz")], "kits", out, margin_mm=-1.0)
    assert third.skipped == () and (out / "a" / "report.html").stat().st_mtime_ns != stamps["a"]


def test_scans_are_paired_by_name_and_wrong_ones_refused(cases: Path, tmp_path: Path) -> None:
    labels = [str(cases / "labels" / f"{name}.nii.gz") for name in ("a", "b")]
    run = measure_files(labels, "kits", tmp_path / "out", scan=str(cases / "scans"), workers=1)
    assert all(table["organs"][0]["hu_mean"] is not None for table in run.done.values())
    with pytest.raises(UsageError, match="2 label maps"):
        measure_files(labels, "kits", tmp_path / "x", scan=str(cases / "scans" / "a.nii.gz"))
    with pytest.raises(UsageError, match="no scan for none"):
        measure_files(
            [*labels, str(cases / "labels" / "none.nii.gz")], "kits", tmp_path / "x", scan=str(cases / "scans")
        )
    other = make_case(2, small=True, shape=(100, 90, 40), spacing_mm=(3.3, 3.3, 4.0))
    write_scan(tmp_path / "other.nii.gz", other.ct)
    run = measure_files(labels[:1], "kits", tmp_path / "y", scan=str(tmp_path / "other.nii.gz"))
    assert "shape" in run.failed["a"] and run.exit_code == 1
    with pytest.raises(GeometryError):
        measure_all(make_case(1, small=True).labels, KITS, other.ct)


def test_a_later_date_is_followed_from_the_command_line(
    cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, scan = str(cases / "labels" / "a.nii.gz"), cases / "scans" / "a.nii.gz"
    words = ["measure", labels, "--scheme", "kits", "--quiet", "--workers", "1"]
    assert main([*words, "--out", str(tmp_path / "first"), "--scan", str(scan)]) == 0
    write_json(tmp_path / "ct.json", {"StudyDate": "2025-03-01"})
    write_scan(tmp_path / "ct.nii.gz", make_case(1, small=True).ct)
    write_json(scan.with_name("a.json"), {"AcquisitionDateTime": "20250101T101010"})
    before = ["--previous", str(tmp_path / "first" / "a")]
    assert main([*words, "--out", str(tmp_path / "second"), "--scan", str(tmp_path / "ct.nii.gz"), *before]) == 0
    table = read_json(tmp_path / "second" / "a" / "measurements.json")
    assert table["followup"]["days"] == 59 and table["followup"]["recist"]["category"] == "SD"
    assert "59 days after “a”" in (tmp_path / "second" / "a" / "report.html").read_text(encoding="utf-8")
    alone = ["--previous", labels, "--previous-scan", str(scan), "--days", "10"]
    assert main([*words, "--out", str(tmp_path / "third"), *alone]) == 0
    assert read_json(tmp_path / "third" / "a" / "measurements.json")["followup"]["days"] == 10
    capsys.readouterr()
    (tmp_path / "first" / "a" / "measurements.json").write_text("{", encoding="utf-8")
    assert main([*words, "--out", str(tmp_path / "fourth"), *before]) == 1
    assert "is not JSON" in capsys.readouterr().out
    for wrong in (["--days", "3"], ["--probabilities", str(tmp_path)], ["--folds", str(cases / "scans" / "no")]):
        assert main([*words, "--out", str(tmp_path / "fifth"), *wrong]) in (1, 2)
    assert main([*words[:1], labels, str(cases / "labels" / "b.nii.gz"), *words[2:], "--out", "x", *before]) == 2
    assert "one label map" in capsys.readouterr().err


def test_measuring_does_not_load_torch(cases: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom hilum.cli import main\n"
        f"assert main(['measure', {str(cases / 'labels' / 'none.nii.gz')!r}, '--scheme', 'kits', '--out', "
        f"{str(tmp_path)!r}, '--quiet']) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_pages_are_drawn_again_and_lost_cases_listed(cases: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "cut.nii.gz").write_bytes((cases / "labels" / "a.nii.gz").read_bytes()[:900])
    given = [str(cases / "labels" / f"{name}.nii.gz") for name in ("a", "none")] + [str(tmp_path / "cut.nii.gz")]
    assert list(measure_files(given, "kits", out, workers=1).failed) == ["cut"]
    assert list(read_json(out / "failures.json")) == ["cut"]
    (out / "a" / "report.html").unlink()
    (out / "summary.html").write_text("", encoding="utf-8")
    one = redraw_cases([out / "a"], workers=1)  # the page of all keeps the others, and those that failed
    assert one.pages == (out / "a" / "report.html", out / "summary.html")
    text = one.pages[1].read_text(encoding="utf-8")
    assert all(f">{name}<" in text for name in ("a", "none", "cut"))
    (out / "none" / "measurements.json").write_text("[]", encoding="utf-8")
    assert case_folders(out) == [out / "a", out / "none"] and case_folders(out / "a") == [out / "a"]
    run = redraw_cases(case_folders(out), workers=1)
    assert run.pages == (out / "a" / "report.html", out / "summary.html") and run.exit_code == 1
    assert "holds no measurements" in run.failed[str(out / "none")]
    assert "failed" in run.text() and run.to_json()["failed"]


def test_a_pdf_is_written_or_the_missing_library_named(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    measure_files([str(cases / "labels" / "none.nii.gz")], "kits", out)
    page, made = out / "none" / "report.html", out / "none" / "report.pdf"

    def missing(name: str) -> Any:
        raise OSError("cannot load library 'libpango-1.0-0'")

    with monkeypatch.context() as patch:
        patch.setattr(pdf_module, "import_module", missing)
        with pytest.raises(UsageError, match="libpango"):
            pdf_module.write_pdf(page, made)
    assert not made.exists()
    pytest.importorskip("weasyprint", exc_type=OSError)
    pdf_module.write_pdf(page, made)
    assert made.read_bytes().startswith(b"%PDF")


def table(volume_ml: float, look: bool = False) -> dict[str, Any]:
    organ = {"name": "liver", "side": "", "volume_ml": volume_ml, "cut_by_field_of_view": False}
    return {"organs": [organ], "lesions": [], "quality": {"look": look, "why": ["why"] if look else []}}


def test_outliers_come_first() -> None:
    many = {f"c{n}": table(1500.0 + 10 * n) for n in range(9)} | {"huge": table(4000.0), "bad": table(1540.0, True)}
    assert in_order(many)[:2] == ["bad", "huge"]
    assert oddness(many)["huge"] > 5 > oddness(many)["c4"]
    assert set(oddness({"a": table(1.0), "b": table(9.0)}).values()) == {0.0}


def test_a_long_page_can_be_searched_and_tells_what_failed(tmp_path: Path) -> None:
    rows = {f"c{n:03}": {**table(1500.0 + n, n < 2), "format": 2} for n in range(FEW + 1)}
    text = cohort_report(tmp_path / "summary.html", rows, {"cut": "the file ends too early"}).read_text("utf-8")
    assert text.count("<tr") == 1 + len(rows) and 'role="search"' in text and 'aria-live="polite"' in text
    assert '<a href="#failed">' in text and '<h2 id="failed">' in text and "the file ends too early" in text
    assert "15 cases" not in text and "2 cases" not in text and "two cases to look at" in text
    short = cohort_report(tmp_path / "short.html", {"a": rows["c000"]}).read_text("utf-8")
    assert 'role="search"' not in short and "#failed" not in short


@pytest.mark.parametrize("flip", [1, -1])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 0.8, 0.8)])
def test_a_ball_s_mesh_is_closed_faces_outwards_and_keeps_its_size(
    spacing: tuple[float, float, float], flip: int
) -> None:
    shape = tuple(int(50 / s) for s in spacing)
    grid = Grid(shape, np.diag([*np.array(spacing) * [1, 1, flip], 1.0]))  # type: ignore[arg-type]
    centre = grid.world((np.array(shape) - 1) / 2)
    mask = ((grid.world(np.stack(np.indices(shape), axis=-1)) - centre) ** 2).sum(axis=-1) <= 20.0**2
    mesh = surface(mask, grid, 2.0)
    assert mesh is not None
    edges = np.sort(mesh.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    a, b, c = (mesh.points_mm[mesh.triangles[:, n]] - centre for n in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.06)  # positive: seen from outside
    assert np.einsum("ij,ij->i", mesh.normals(), mesh.points_mm - centre).min() > 0
    points, triangles = mesh.encoded(mesh.points_mm.min(axis=0), 60.0)
    assert len(points) > 1000 and len(triangles) > 1000


def test_a_volume_elsewhere_is_no_trouble_for_a_mesh() -> None:
    one = Volume(np.ones((1, 1, 1), np.uint8), np.eye(4))
    mesh = surface(one.array > 0, one.grid, 3.0)
    assert mesh is not None and np.isfinite(mesh.points_mm).all()
