from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hilum.datasets import CaseRef
from hilum.errors import OutputError, UsageError
from hilum.files import read_json
from hilum.labels import SCHEMES
from hilum.model import load_model
from hilum.pipeline import predict_cases, segment
from hilum.pipeline.casefolder import RESULTS, CaseFolder, scan_stamp
from hilum.pipeline.meter import Meter
from hilum.pipeline.stages import Failure, in_three_stages, sentence
from hilum.progress import Progress
from hilum.scans import ScanRef, read_labels, read_scan, read_volume, write_labels, write_scan
from threshold_model import blocks, labels_of, scan_of, threshold_model

KITS = SCHEMES["kits"]
SPACING_MM = (2.0, 1.5, 1.0)
SHAPE = (11, 30, 37)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return threshold_model(tmp_path_factory.mktemp("models") / "thresholds").folder


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Three good scans in three axis orders, and one file that is no scan."""
    folder = tmp_path_factory.mktemp("scans")
    for number, codes in enumerate(("RAS", "LPS", "SPL")):
        write_scan(folder / f"case_{number}.nii.gz", scan_of(blocks(SHAPE, number), SPACING_MM, codes))
    (folder / "case_1b.nii.gz").write_bytes(b"no scan at all")
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory, scans, model_folder):
    """A run over all of them, and what it returned."""
    out = tmp_path_factory.mktemp("out")
    return out, segment([str(scans / "*.nii.gz")], model_folder, out, device="cpu")


def test_labels_are_exact_and_on_the_scan_s_own_grid(finished, scans):
    out, _ = finished
    for number in range(3):
        scan = read_scan(scans / f"case_{number}.nii.gz")
        labels = read_labels(out / f"case_{number}" / "labels.nii.gz", KITS)
        assert labels.array.dtype == np.uint8 and labels.shape == scan.shape
        assert np.array_equal(labels.affine, scan.affine)
        assert np.array_equal(labels.oriented().array, blocks(SHAPE, number))


def test_a_bad_case_is_listed_and_the_others_go_on(finished):
    out, run = finished
    assert run.exit_code == 1 and run.done == ("case_0", "case_1", "case_2")
    assert list(run.failed) == ["case_1b"] and "NIfTI" in run.failed["case_1b"]
    assert "case_1b" in run.text() and run.to_json()["failed"] == run.failed
    assert not (out / "case_1b").exists()


def test_every_promised_file_is_there(finished):
    out, _ = finished
    for number in range(3):
        folder = out / f"case_{number}"
        assert all((folder / name).stat().st_size > 100 for name in RESULTS)
        measurements = read_json(folder / "measurements.json")
        voxels = int((blocks(SHAPE, number) == 2).sum())
        assert measurements["volumes_ml"]["tumour"] == pytest.approx(voxels * 0.003, abs=0.01)
        assert "not for diagnosis" in (folder / "report.html").read_text(encoding="utf-8").lower()
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == ["case_0", "case_1", "case_2"]
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_run_json(finished, model_folder):
    out, _ = finished
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    model = load_model(model_folder)
    assert record["model"]["hash"] == model.hash and record["model"]["name"] == "thresholds"
    assert set(record["versions"]) >= {"hilum", "torch", "numpy", "python"}
    assert record["device"]["name"] == "cpu" and record["device"]["precision"] in ("bf16", "fp32")
    assert record["options"]["overlap"] == 0.5 and record["options"]["postprocess"] == []
    assert [x["case"] for x in record["failures"]] == ["case_1b"]
    states = {name: case["state"] for name, case in record["cases"].items()}
    assert states == {"case_0": "done", "case_1": "done", "case_1b": "failed", "case_2": "done"}
    case = record["cases"]["case_0"]
    stages = {"read", "prepare", "predict", "export", "postprocess", "write", "measure", "report"}
    assert set(case["seconds"]) == stages and all(seconds >= 0 for seconds in case["seconds"].values())
    assert set(case["memory_gb"]) <= stages and max(case["memory_gb"].values()) > 0.05
    assert case["tiles"] > 1 and case["removed"] == []


def test_a_second_run_leaves_finished_cases_as_they_are(finished, scans, model_folder):
    out, _ = finished
    before = (out / "case_0" / "labels.nii.gz").stat().st_mtime_ns
    (out / "case_1" / "report.html").unlink()
    run = segment([str(scans / "case_[012].nii.gz")], model_folder, out, device="cpu")
    assert run.exit_code == 0 and run.done == ("case_1",) and run.skipped == ("case_0", "case_2")
    assert "there already" in run.text()
    assert (out / "case_0" / "labels.nii.gz").stat().st_mtime_ns == before
    assert (out / "case_1" / "report.html").is_file()
    record = read_json(out / "run.json")
    assert record["cases"]["case_0"]["state"] == "skipped" and "predict" in record["cases"]["case_0"]["seconds"]
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_a_scan_that_changed_is_done_again(tmp_path, model_folder):
    path = tmp_path / "a.nii.gz"
    write_scan(path, scan_of(blocks(SHAPE, 0), SPACING_MM))
    segment([path], model_folder, tmp_path / "out", device="cpu")
    write_scan(path, scan_of(blocks(SHAPE, 1), SPACING_MM))
    assert segment([path], model_folder, tmp_path / "out", device="cpu").done == ("a",)
    labels = read_labels(tmp_path / "out" / "a" / "labels.nii.gz", KITS)
    assert np.array_equal(labels.array, blocks(SHAPE, 1))


def test_results_of_another_model_or_of_nobody_are_not_overwritten(tmp_path, scans, model_folder):
    scan, out = scans / "case_0.nii.gz", tmp_path / "out"
    segment([scan], model_folder, out, device="cpu")
    other = threshold_model(tmp_path / "other", edges_hu=(40.0, 150.0, 250.0))
    before = (out / "case_0" / "labels.nii.gz").read_bytes()
    with pytest.raises(OutputError, match="another model"):
        segment([scan], other, out, device="cpu")
    with pytest.raises(OutputError, match="other options"):
        segment([scan], model_folder, out, device="cpu", mirror=True)
    assert (out / "case_0" / "labels.nii.gz").read_bytes() == before
    assert segment([scan], other, out, device="cpu", overwrite=True).done == ("case_0",)
    assert read_json(out / "case_0" / "case.json")["model"]["hash"] == other.hash
    (out / "case_0" / "case.json").unlink()
    with pytest.raises(OutputError, match="no record"):
        segment([scan], other, out, device="cpu")


def test_probabilities_are_written_on_the_scan_s_grid(tmp_path, scans, model_folder):
    scan = read_scan(scans / "case_1.nii.gz")
    run = segment([scans / "case_1.nii.gz"], model_folder, tmp_path, device="cpu", probabilities=True)
    assert run.exit_code == 0
    for name in ("kidney", "tumour", "cyst"):
        shares = read_volume(tmp_path / "case_1" / f"probabilities_{name}.nii.gz")
        assert shares.shape == scan.shape and np.array_equal(shares.affine, scan.affine)
        assert shares.array.dtype == np.uint8 and shares.array.max() > 100
    segment([scans / "case_1.nii.gz"], model_folder, tmp_path, device="cpu", overwrite=True)
    assert not list((tmp_path / "case_1").glob("probabilities_*"))


def test_post_processing_is_recorded(tmp_path):
    classes = np.zeros(SHAPE, np.uint8)
    classes[2:8, 2:10, 2:10] = 1
    classes[9, 25, 30:33] = 2
    write_scan(tmp_path / "a.nii.gz", scan_of(classes, SPACING_MM))
    model = threshold_model(tmp_path / "m", postprocess=({"step": "touch_organ"},))
    segment([tmp_path / "a.nii.gz"], model, tmp_path / "out", device="cpu")
    assert not (read_labels(tmp_path / "out" / "a" / "labels.nii.gz", KITS).array == 2).any()
    removed = read_json(tmp_path / "out" / "run.json")["cases"]["a"]["removed"]
    assert removed == [{"step": "touch_organ", "what": "kidney lesions", "components": 1, "ml": pytest.approx(0.009)}]
    assert "touch_organ" in (tmp_path / "out" / "a" / "report.html").read_text(encoding="utf-8")


def test_an_empty_scan_has_empty_results(tmp_path, model_folder):
    hu = np.full(SHAPE, -1000, np.int16)
    hu[:, 20:25] = -700  # a table, no patient
    write_scan(tmp_path / "a.nii.gz", scan_of(np.zeros(SHAPE, np.uint8), SPACING_MM).with_array(hu))
    run = segment([tmp_path / "a.nii.gz"], model_folder, tmp_path / "out", device="cpu")
    assert run.exit_code == 0
    assert not read_labels(tmp_path / "out" / "a" / "labels.nii.gz", KITS).array.any()


def test_wrong_use(tmp_path, scans, model_folder):
    with pytest.raises(UsageError):
        segment([], model_folder, tmp_path)
    with pytest.raises(UsageError):
        segment([str(scans / "nothing*.nii.gz")], model_folder, tmp_path)
    with pytest.raises(UsageError):
        segment([scans / "case_0.nii.gz"], "no-such-model", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_out_folder_that_is_a_file_is_told_before_the_work(tmp_path, scans, model_folder):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError):
        segment([scans / "case_0.nii.gz"], model_folder, tmp_path / "out", device="cpu")


def test_a_label_file_that_reads_back_differently_is_a_failure(tmp_path, scans, model_folder, monkeypatch):
    from hilum.pipeline import segmenting

    def broken(path, volume):
        raise OutputError("the file reads back differently", where=path)

    monkeypatch.setattr(segmenting, "write_labels", broken)
    run = segment([scans / "case_0.nii.gz"], model_folder, tmp_path, device="cpu")
    assert "reads back" in run.failed["case_0"]
    monkeypatch.undo()
    assert segment([scans / "case_0.nii.gz"], model_folder, tmp_path, device="cpu").done == ("case_0",)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_killed_run_resumes_where_it_was(tmp_path, model_folder, kill):
    """A signal in the middle of a run in a process of its own; the next run does what is missing."""
    scans = tmp_path / "scans"
    for number in range(6):
        write_scan(scans / f"c{number}.nii.gz", scan_of(blocks(SHAPE, number), SPACING_MM))
    out = tmp_path / "out"
    code = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
        "from hilum.pipeline import segment\n"
        f"segment([{str(scans)!r}], {str(model_folder)!r}, {str(out)!r}, device='cpu')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        deadline = time.monotonic() + 60
        while not (out / "c1" / "labels.nii.gz").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(kill)
    whole = {path.parent.name for path in out.glob("*/case.json") if read_json(path)["state"] == "done"}
    assert "c0" in whole and len(whole) < 6
    run = segment([str(scans)], model_folder, out, device="cpu")
    assert run.exit_code == 0 and set(run.skipped) == whole
    for number in range(6):
        labels = read_labels(out / f"c{number}" / "labels.nii.gz", KITS)
        assert np.array_equal(labels.oriented().array, blocks(SHAPE, number))


def test_progress_says_what_happens(tmp_path, scans, model_folder):
    stream = io.StringIO()
    refs = [ScanRef("x", scans / "case_0.nii.gz"), ScanRef("y", scans / "case_1b.nii.gz")]
    segment(refs, model_folder, tmp_path, device="cpu", progress=Progress(stream=stream))
    assert "1/2 x done" in stream.getvalue() and "2/2 y failed" in stream.getvalue()


def test_predict_cases_for_an_evaluation(tmp_path, scans, model_folder):
    truth = tmp_path / "elsewhere"
    cases = []
    for number, codes in enumerate(("RAS", "LPS")):
        write_labels(truth / f"t{number}.nii.gz", labels_of(blocks(SHAPE, number), SPACING_MM, codes))
        cases.append(CaseRef(f"k{number}", scans / f"case_{number}.nii.gz", truth / f"t{number}.nii.gz", f"p{number}"))
    cases.append(CaseRef("bad", scans / "case_1b.nii.gz", None, "p9"))
    first = predict_cases(model_folder, cases, tmp_path / "validation", device="cpu")
    assert first.cases == ("k0", "k1") and list(first.failed) == ["bad"]
    for number in range(2):
        prediction = read_labels(first.predictions / f"k{number}.nii.gz", KITS)
        assert np.array_equal(prediction.oriented().array, blocks(SHAPE, number))
        assert np.array_equal(read_labels(first.truth / f"k{number}.nii.gz", KITS).array, prediction.array)
    before = (first.predictions / "k0.nii.gz").stat().st_mtime_ns
    (first.predictions / "k1.nii.gz").unlink()
    second = predict_cases(model_folder, cases, tmp_path / "validation", device="cpu")
    assert second.cases == ("k0", "k1") and (first.predictions / "k1.nii.gz").is_file()
    assert (first.predictions / "k0.nii.gz").stat().st_mtime_ns == before


def test_predictions_can_be_evaluated(tmp_path, scans, model_folder):
    from hilum.judge.evaluate import evaluate

    write_labels(tmp_path / "t.nii.gz", labels_of(blocks(SHAPE, 0), SPACING_MM, "RAS"))
    case = CaseRef("k0", scans / "case_0.nii.gz", tmp_path / "t.nii.gz", "p")
    found = predict_cases(model_folder, [case], tmp_path / "validation", device="cpu")
    scores = evaluate(found.truth, found.predictions, "kits23", tmp_path / "validation", workers=1)
    assert scores["cases"]["k0"]["mass"]["dice"] == 1


def test_stages_overlap_and_keep_the_order():
    running: set[str] = set()
    together: set[frozenset[str]] = set()
    lock = threading.Lock()

    def stage(name):
        def work(item, value=0):
            with lock:
                running.add(name)
                together.add(frozenset(running))
            time.sleep(0.02)
            with lock:
                running.discard(name)
            if (name, item) in (("load", 1), ("compute", 3), ("finish", 4)):
                raise ValueError(f"{name} {item}")
            return item

        return work

    outcomes = dict(in_three_stages(range(7), stage("load"), stage("compute"), stage("finish")))
    assert list(outcomes) == list(range(7))
    assert [item for item, outcome in outcomes.items() if isinstance(outcome, Failure)] == [1, 3, 4]
    assert frozenset({"load", "compute", "finish"}) in together
    assert dict(in_three_stages([], stage("load"), stage("compute"), stage("finish"))) == {}


def test_sentences():
    assert sentence(UsageError("wrong", fix="mend it")) == "wrong; mend it"
    assert "memory" in sentence(MemoryError()) and "report it" in sentence(KeyError("x"))
    assert "memory" in sentence(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."))


def test_the_meter_adds_up():
    with Meter() as meter:
        with meter.stage("a", "read"):
            time.sleep(0.06)
        with meter.stage("a", "read"):
            pass
        meter.add("a", "export", 1.5)
    assert 0.05 < meter.seconds["a"]["read"] < 5 and meter.seconds["a"]["export"] == 1.5
    assert meter.memory_gb["a"]["read"] > 0.01


def test_case_folder_states(tmp_path):
    scan = tmp_path / "scan.nii"
    scan.write_bytes(b"1234")
    folder = CaseFolder(tmp_path / "out" / "c", scan, {"name": "m", "hash": "1"}, {"mirror": False})
    assert folder.state() == "absent" and folder.record() is None
    folder.begin()
    (folder.path / "labels.nii.gz").write_bytes(b"x")
    assert folder.state() == "absent"  # begun and killed
    for name in RESULTS:
        (folder.path / name).write_bytes(b"x")
    folder.finish({"tiles": 3})
    assert folder.state() == "done" and folder.record()["tiles"] == 3
    assert CaseFolder(folder.path, scan, {"name": "m", "hash": "2"}, {"mirror": False}).state() == "other"
    assert CaseFolder(folder.path, scan, folder.model, {"mirror": True}).state() == "other"
    os.utime(scan, ns=(1, 1))
    assert folder.state() == "absent"  # the scan changed
    assert folder.probabilities("kidney tumour").name == "probabilities_kidney_tumour.nii.gz"


def test_stamp_of_a_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"345")
    stamp = scan_stamp(tmp_path)
    assert stamp["files"] == 2 and stamp["bytes"] == 5 and stamp["modified_ns"] > 0
