"""The same answer whichever engine runs a network: what surrounds the forward pass knows nothing of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hilum.errors import ModelError, UsageError
from hilum.exchange.export import export_model
from hilum.inference import memory
from hilum.inference.engines import choose_device, one_by_one, open_engine, require
from hilum.inference.ensemble import Ensemble
from hilum.inference.predict import Predictor
from hilum.model import Model, load_model
from hilum.prepare.preprocess import prepare_scan, stream_scan
from hilum.scans import write_scan
from test_model_export import SHAPE, SPACING_MM, need
from threshold_model import blocks, scan_of, threshold_model


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    need(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    write_scan(folder / "case.nii.gz", scan_of(blocks((5, 9, 11)), SPACING_MM))
    source = threshold_model(folder / "m", mirror=True).folder
    export_model(source, folder / "e", engine=request.param, calibration=[str(folder / "case.nii.gz")])
    return load_model(folder / "e")


def damaged(model: Model, folder: Path, **changes: object) -> Path:
    """A copy whose description of the engine differs."""
    folder.mkdir()
    for file in model.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    table = json.loads((folder / "model.json").read_text())
    table["engine"] |= changes
    (folder / "model.json").write_text(json.dumps(table))
    return folder


@pytest.mark.parametrize("options", [{"mirror": True}, {"batch": 3}, {"region": True}, {"overlap": 0.0}], ids=str)
def test_labels_are_exact_whatever_surrounds_the_network(exported: Model, options: dict[str, object]) -> None:
    predictor = Predictor(exported, "cpu", **options)  # type: ignore[arg-type]
    labels = predictor.segment(scan_of(blocks(SHAPE), SPACING_MM, "LPS"))
    assert np.array_equal(labels.oriented().array, blocks(SHAPE)) and labels.grid.codes == "LPS"


def test_slabs_equal_the_whole(exported: Model) -> None:
    scan, predictor = scan_of(blocks((29, 17, 21)), SPACING_MM), Predictor(exported, "cpu")
    whole = predictor.predict(prepare_scan(scan, exported.plan)).labels.array
    assert np.array_equal(whole, predictor.predict(stream_scan(scan, exported.plan)).labels.array)
    assert np.array_equal(whole, blocks((29, 17, 21)))


def test_an_ensemble_of_two_engines(exported: Model, tmp_path: Path) -> None:
    other = threshold_model(tmp_path / "m")
    both = Ensemble([Predictor(exported, "cpu"), Predictor(other, "cpu")])
    labels = both.segment(scan_of(blocks(SHAPE), SPACING_MM))
    assert np.array_equal(labels.array, blocks(SHAPE))


def test_memory_is_planned_from_what_was_counted_at_export(exported: Model) -> None:
    assert exported.exported is not None
    source = load_model(exported.folder.parent / "m")
    patch = (1, 1, *exported.plan.patch)
    counted = memory.traced_bytes(Predictor(source, "cpu"), patch)
    assert memory.traced_bytes(Predictor(exported, "cpu"), patch) == counted > 4 * 8 * 12 * 16


def test_precision_is_the_export_s(exported: Model) -> None:
    assert open_engine(exported, torch.device("cpu"), "fp32").precision == "fp32"
    with pytest.raises(UsageError, match="precision 'bf16' for a model that was exported in fp32"):
        Predictor(exported, "cpu", precision="bf16")


def test_exports_run_on_the_processor(exported: Model) -> None:
    assert choose_device(exported, "auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="device 'cuda' for the exported model 'e'; wanted auto or cpu"):
        Predictor(exported, "cuda")


def test_damage_is_said(exported: Model, tmp_path: Path) -> None:
    for place, file in enumerate(sorted(exported.folder.glob("network.*"))):
        folder = damaged(exported, tmp_path / f"flipped{place}")
        data = bytearray((folder / file.name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / file.name).write_bytes(data)
        with pytest.raises(ModelError, match=rf"{file.name}: is damaged: its checksum"):
            load_model(folder)
        (folder / file.name).unlink()
        with pytest.raises(ModelError, match=rf"{file.name}: is missing"):
            load_model(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "abacus"}, r"is for engine 'abacus'; wanted one of \['onnx', 'openvino'\]"),
        ({"networks": []}, "lists no networks"),
        ({"networks": [[]]}, "lists no networks"),
        ({"networks": [[{"file": "../other/network.onnx", "sha256": ""}]]}, "outside the folder"),
        ({"networks": 3}, "describes no engine"),
        ({"activation_bytes": "many"}, "describes no engine"),
    ],
    ids=str,
)
def test_a_wrong_description_is_said(exported: Model, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        load_model(damaged(exported, tmp_path / "d", **changes))


def test_a_file_that_is_no_network(exported: Model, tmp_path: Path) -> None:
    import hashlib

    names = [file.name for file in sorted(exported.folder.glob("network.*"), key=lambda f: f.suffix != ".xml")]
    listed = [{"file": name, "sha256": hashlib.sha256(b"not a network").hexdigest()} for name in names]
    folder = damaged(exported, tmp_path / "d", networks=[listed])
    for name in names:
        (folder / name).write_bytes(b"not a network")
    with pytest.raises(ModelError, match="cannot be opened by"):
        Predictor(load_model(folder), "cpu")


def test_a_missing_extra_is_named(exported: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exported.exported is not None
    module = {"onnx": "onnxruntime", "openvino": "openvino"}[exported.exported.engine]
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(
        UsageError, match=rf"{module} is not installed .* pip install 'hilum\[{exported.exported.engine}"
    ):
        Predictor(exported, "cpu")


def test_extras_report_to_nobody() -> None:
    need("openvino")
    require("openvino", "openvino")
    with pytest.raises(ImportError):
        __import__("openvino_telemetry")


def test_one_at_a_time() -> None:
    sizes = []

    def network(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return images + 1

    images = torch.arange(24.0).view(3, 1, 2, 2, 2)
    assert torch.equal(one_by_one(images, network), images + 1) and sizes == [1, 1, 1]
