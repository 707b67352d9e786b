from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hilum.cli import main
from hilum.errors import ModelError, OutputError, UsageError
from hilum.exchange import export as exporting
from hilum.exchange.export import export_model
from hilum.exchange.export_parity import KEPT, Recorder, calibration_cases
from hilum.inference.engines import require
from hilum.inference.predict import Predictor
from hilum.labels import SCHEMES
from hilum.model import NetworkSpec, load_model, save_model
from hilum.scans import read_labels, read_scan, write_scan
from threshold_model import blocks, make_plan, scan_of, threshold_model

SPACING_MM = (2.0, 1.5, 1.0)
SHAPE = (11, 26, 33)
KITS = SCHEMES["kits"]
NEEDED = {"onnx": ["onnx", "onnxruntime", "onnxscript"], "openvino": ["openvino", "nncf"]}


def need(engine: str) -> None:
    for name in NEEDED[engine]:
        try:
            require(name, engine)
        except UsageError as error:
            pytest.skip(f"the extra {engine!r} is not installed: {error.found}")


@pytest.fixture(params=["onnx", "openvino"])
def engine(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scans") / "case_0.nii.gz"
    write_scan(file, scan_of(blocks(SHAPE), SPACING_MM, "RAS"))
    return file


def unet(folder: Path, dims: int = 3) -> Path:
    """A small U-Net with weights as they are drawn, which answers with several labels."""
    plan = make_plan((8, 12, 16) if dims == 3 else (1, 12, 16), SPACING_MM, dims)
    strides = [[1] * dims, [2] * dims]
    options = {"features": [8, 12], "strides": strides, "kernels": [[3] * dims] * 2, "convs_per_stage": [1, 1]}
    spec = NetworkSpec("plain_unet", options, 1, KITS.class_count, dims)
    torch.manual_seed(1)
    save_model(folder, spec, spec.build().state_dict(), plan, KITS)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_answers_as_its_model_does(
    tmp_path: Path, engine: str, precision: str, scan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MOST_LOST", 0.005 if precision == "fp32" else 0.05)  # drawn weights are touchy
    folder = unet(tmp_path / "m")
    made = export_model(folder, tmp_path / "e", engine=engine, precision=precision, calibration=[str(scan_file)])
    parity, model = made.parity, load_model(tmp_path / "e")
    assert parity.cases == ("case_0",) and parity.patches > 0 and not parity.empty
    assert parity.spread > 0.05
    if parity.precision == "fp32":  # OpenVINO takes the nearest type that the processor has
        assert parity.largest < (1e-3 if precision == "fp32" else 3e-2) * parity.spread
        assert parity.identical > (0.9999 if precision == "fp32" else 0.99)
    else:
        assert parity.identical > 0.97
    assert model.weights == () and model.folds == 1 and model.exported is not None
    assert model.exported.source == {"name": "m", "hash": load_model(folder).hash}
    assert not list((tmp_path / "e").rglob("*.safetensors")) and not list((tmp_path / "e").glob(".making*"))
    source = load_model(folder)
    assert (model.plan, model.scheme, model.inference) == (source.plan, source.scheme, source.inference)
    said = json.loads((tmp_path / "e" / "parity.json").read_text())
    assert said["parity"]["identical"] == parity.identical and said["engine"] == engine


@pytest.mark.slow
def test_half_size_weights_take_half_the_bytes(
    tmp_path: Path, engine: str, scan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MOST_LOST", 1.0)
    options = {"features": [32, 64], "strides": [[1] * 3, [2] * 3], "kernels": [[3] * 3] * 2, "convs_per_stage": [1, 1]}
    spec = NetworkSpec("plain_unet", options, 1, 4, 3)
    save_model(tmp_path / "m", spec, spec.build().state_dict(), make_plan((8, 8, 8), (4.0, 4.0, 4.0)), KITS)
    sizes = [
        export_model(tmp_path / "m", tmp_path / p, engine=engine, precision=p, calibration=[str(scan_file)]).megabytes
        for p in ("fp32", "fp16")
    ]
    assert 0.4 < sizes[1] / sizes[0] < 0.75


@pytest.mark.slow
def test_two_dimensions(tmp_path: Path, scan_file: Path) -> None:
    need("onnx")
    folder = unet(tmp_path / "m", dims=2)
    made = export_model(folder, tmp_path / "e", engine="onnx", calibration=[str(scan_file)])
    assert made.parity.identical > 0.9999


def test_eight_bits_are_quantised_and_judged(
    tmp_path: Path, engine: str, scan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unet(tmp_path / "m")
    monkeypatch.setattr(exporting, "MOST_LOST", 1.0)  # drawn weights are touchy
    made = export_model(folder, tmp_path / "e", engine=engine, int8=True, calibration=[str(scan_file)])
    assert made.parity.precision == "int8" and made.parity.identical > 0.8
    assert 1e-4 < made.parity.largest / made.parity.spread < 5  # it is another network, and the same one nearly
    predictor = Predictor(load_model(tmp_path / "e"), "cpu")
    assert predictor.precision == "int8" and predictor.segment(scan_of(blocks(SHAPE), SPACING_MM)).shape == SHAPE


def test_an_export_that_loses_too_much_is_refused_and_leaves_nothing(
    tmp_path: Path, scan_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("onnx")
    folder, write = threshold_model(tmp_path / "m").folder, exporting.write_onnx

    def worse(network: torch.nn.Module, *args: object, **options: object) -> list[Path]:
        network.edges[0] += 0.8  # 80 HU later: what lies at 100 HU is no longer a kidney
        return write(network, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(exporting, "write_onnx", worse)
    words = ["model", "export", str(folder), "--format", "onnx", "--out", str(tmp_path / "e"), "--quiet"]
    assert main([*words, "--calibration", str(scan_file)]) == 1
    said = capsys.readouterr().err
    assert "not written: it loses 100.00 Dice points of kidney on 1 calibration cases" in said
    assert "at most 0.5" in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_eight_bits_need_cases_in_which_something_is_found(tmp_path: Path, scan_file: Path) -> None:
    need("onnx")
    folder = threshold_model(tmp_path / "m", edges_hu=(5000.0, 6000.0, 7000.0)).folder
    with pytest.raises(ModelError, match="finds no label on 1 calibration cases"):
        export_model(folder, tmp_path / "e", engine="onnx", int8=True, calibration=[str(scan_file)])
    made = export_model(folder, tmp_path / "e", engine="onnx", calibration=[str(scan_file)])
    assert made.parity.empty and "no label was found by either" in made.text()


@pytest.mark.slow
def test_folds_locators_and_cascades_go_too(tmp_path: Path, scan_file: Path) -> None:
    need("onnx")
    small = threshold_model(tmp_path / "small", spacing_mm=(4.0, 4.0, 4.0), patch=(8, 8, 8))
    two = threshold_model(tmp_path / "two", folds=2)
    save_model(tmp_path / "m", two.spec, two.weights, two.plan, two.scheme, two.inference, locator=small.folder)
    export_model(tmp_path / "m", tmp_path / "e", engine="onnx", calibration=[str(scan_file)])
    found = {str(path.relative_to(tmp_path / "e")) for path in (tmp_path / "e").rglob("*.onnx")}
    assert found == {"network_0.onnx", "network_1.onnx", "locator/network.onnx"}
    predictor = Predictor(load_model(tmp_path / "e"), "cpu")
    assert predictor.locator is not None and predictor.locator.model.exported is not None and predictor.disagreeing
    labels = predictor.segment(scan_of(blocks(SHAPE), SPACING_MM))
    assert np.array_equal(labels.array, Predictor(load_model(tmp_path / "m"), "cpu").segment(
        scan_of(blocks(SHAPE), SPACING_MM)
    ).array)  # fmt: skip


def test_the_command_exports_and_segments(
    tmp_path: Path, engine: str, scan_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = threshold_model(tmp_path / "m").folder
    words = ["model", "export", str(folder), "--format", engine, "--out", str(tmp_path / "e"), "--quiet", "--json"]
    assert main([*words, "--calibration", str(scan_file)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parity"]["identical"] == 1.0 and [x["agreement"] for x in told["parity"]["labels"]] == [1.0] * 3
    out = tmp_path / "out"
    words = ["segment", str(scan_file), "--model", str(tmp_path / "e"), "--out", str(out), "--quiet"]
    assert main([*words, "--max-memory", "4GB"]) == 0
    labels = read_labels(out / "case_0" / "labels.nii.gz", KITS)
    assert np.array_equal(labels.oriented().array, blocks(SHAPE))
    capsys.readouterr()
    assert main(["model", "show", str(tmp_path / "e")]) == 0
    assert json.loads(capsys.readouterr().out)["engine"]["engine"] == engine


def test_wrong_use(tmp_path: Path, scan_file: Path) -> None:
    folder = threshold_model(tmp_path / "m").folder
    with pytest.raises(UsageError, match="format 'tflite'"):
        export_model(folder, tmp_path / "e", engine="tflite")
    with pytest.raises(UsageError, match="precision 'bf16' for format 'onnx', which on processors has fp32 and fp16"):
        export_model(folder, tmp_path / "e", engine="onnx", precision="bf16")
    with pytest.raises(UsageError, match="precision 'fp16' for format 'onnx', which with 8 bits has fp32 alone"):
        export_model(folder, tmp_path / "e", engine="onnx", precision="fp16", int8=True)
    need("onnx")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(OutputError, match="is no model folder"):
        export_model(folder, tmp_path / "thesis", engine="onnx", calibration=[str(scan_file)])
    export_model(folder, tmp_path / "e", engine="onnx", calibration=[str(scan_file)])
    with pytest.raises(ModelError, match="was exported already; export 'm', which it was made from"):
        export_model(tmp_path / "e", tmp_path / "f", engine="onnx")


def test_a_missing_extra_is_named(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NEEDED[engine][0], None)
    with pytest.raises(UsageError, match=rf"pip install 'hilum\[{engine}\]'"):
        export_model(threshold_model(tmp_path / "m").folder, tmp_path / "e", engine=engine)


def test_phantoms_have_truth_only_for_models_of_their_labels() -> None:
    scan, truth = calibration_cases([], KITS)[0].read()
    assert truth is not None and truth.grid.same_as(scan.grid) and set(np.unique(truth.array)) > {0, 1}
    assert calibration_cases([], SCHEMES["abdomen"])[0].read()[1] is not None
    other = next(scheme for name, scheme in SCHEMES.items() if name not in ("kits", "abdomen", "lits", "ircadb"))
    assert calibration_cases([], other)[0].read()[1] is None


def test_a_recorder_keeps_a_fair_sample_and_changes_nothing() -> None:
    recorder = Recorder(lambda images: images * 2)
    for value in range(200):
        image = torch.full((1, 1, 2, 2, 2), float(value))
        assert torch.equal(recorder(image), image * 2)
    values = [float(x.max()) for x in recorder.inputs]
    assert len(values) == KEPT == len(set(values)) and 50 < np.mean(values) < 150 and max(values) > KEPT


def test_the_example_outside_hilum_gives_the_same_labels(tmp_path: Path) -> None:
    need("onnx")
    page = (Path(__file__).parent.parent / "docs/how-to/deploy.md").read_text(encoding="utf-8")
    script = tmp_path / "segment.py"
    script.write_text(page.split("```python\n", 1)[1].split("```", 1)[0], encoding="utf-8")
    classes, file = blocks((13, 34, 39), 3), tmp_path / "scan.nii.gz"
    write_scan(file, scan_of(classes, (2.5, 1.25, 1.25), "RAS"))
    export_model(threshold_model(tmp_path / "m").folder, tmp_path / "e", engine="onnx", calibration=[str(file)])
    words = [sys.executable, "-W", "error", str(script), str(tmp_path / "e"), str(file), str(tmp_path / "out.nii.gz")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = read_labels(tmp_path / "out.nii.gz", KITS)
    wanted = Predictor(load_model(tmp_path / "e"), "cpu", skip_air=False).segment(read_scan(file))
    assert found.grid.same_as(wanted.grid)
    assert (np.asarray(found.array) == wanted.array).mean() > 0.98  # blocks of four voxels: all of it is edges
    assert (np.asarray(found.oriented().array) == classes).mean() > 0.8  # so that the two are not alike by being empty
