"""A model of hilum's to one that another engine runs: ONNX Runtime or OpenVINO, in fp32, shorter types or 8 bits.

Comes in: a model folder with weights, and scans (or phantoms made here). Goes out: a model folder without weights of
PyTorch, whose networks are ``.onnx`` or ``.xml`` and ``.bin`` files for one patch at a time, and how far its answers
are from PyTorch's in fp32. Everything else of the model (plan, labels, inference, post-processing) is as it was, a
cascade's first model and a locator included, so that ``hilum segment --model`` takes it as any other.

An export that loses more than ``MOST_LOST`` of Dice in any label on its calibration cases is not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hilum import device as devices
from hilum.errors import ModelError, UsageError
from hilum.exchange.export_onnx import write_onnx
from hilum.exchange.export_openvino import write_openvino
from hilum.exchange.export_parity import Calibration, Parity, Recorder, calibration_cases, compare, record
from hilum.files import plain, write_json, written_folder
from hilum.inference.engines import require
from hilum.inference.memory import traced_bytes
from hilum.inference.predict import Predictor
from hilum.model import Model, load_model, save_exported
from hilum.model.saving import refuse_other
from hilum.progress import SILENT, Progress

FORMATS = ("onnx", "openvino")
PRECISIONS = {"onnx": ("fp32", "fp16"), "openvino": ("fp32", "bf16", "fp16")}
MOST_LOST = 0.005
_NEEDED = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "openvino": ("openvino", "nncf")}


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        out: the model folder.
        engine: "onnx" or "openvino".
        int8: whether it was quantised.
        megabytes: of all networks' files.
        parity: how far it is from PyTorch in fp32.
    """

    out: Path
    engine: str
    int8: bool
    megabytes: float
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """For programs; also ``parity.json`` in the folder."""
        table: dict[str, Any] = plain({**asdict(self), "parity": self.parity.to_json()})
        return table

    def text(self) -> str:
        """For people."""
        return "\n".join(
            [
                f"{self.out}: {self.engine}, {self.parity.precision}, {self.megabytes:.1f} MB",
                *self.parity.lines(),
                f"Next     hilum segment SCAN --model {self.out} --out results",
            ]
        )


def export_model(
    model: str | Path,
    out: str | Path,
    *,
    engine: str,
    precision: str = "fp32",
    int8: bool = False,
    calibration: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Export:
    """Export all networks of a model and compare their answers with PyTorch's.

    Args:
        model: a folder, a run, or the name of a model that ships with hilum.
        out: the model folder to write; an older one of that name is replaced.
        engine: "onnx" or "openvino".
        precision: "fp32"; "fp16" keeps weights in half the bytes; "bf16" (OpenVINO) computes in it where the processor
            can.
        int8: quantise weights and activations, after training, from what the networks are shown on calibration cases.
        calibration: scans to compare and quantise on; without any, phantoms are made.
        progress: where to tell.

    Raises:
        UsageError: no such engine or precision, or an extra that is not installed.
        ModelError: the model was exported before, a network cannot be exported, or the export loses too much.
        OutputError: ``out`` is something else than a model, or cannot be written.
    """
    out = Path(out)
    _check_choice(engine, precision, int8)
    loaded = load_model(model)
    if loaded.exported is not None:
        source = loaded.exported.source.get("name")
        raise ModelError("was exported already", where=loaded.folder, fix=f"export {source!r}, which it was made from")
    refuse_other(out)
    for name in _NEEDED[engine]:
        require(name, engine)
    devices.use_threads()
    cases = calibration_cases(calibration, loaded.scheme)
    reference, recorders = record(loaded, cases, progress)
    settings = {"name": engine, "precision": precision, "int8": int8}
    with written_folder(out) as part:
        _write_part(part, reference.predictor, "", recorders, settings, progress)
        parity = compare(reference, load_model(part), cases, recorders, progress)
        _refuse_loss(parity, out, cases)
        size = sum(f.stat().st_size for f in part.rglob("*") if f.suffix in (".onnx", ".xml", ".bin")) / 1e6
        made = Export(out, engine, int8, size, parity)
        write_json(part / "parity.json", made.to_json())
    return made


def _check_choice(engine: str, precision: str, int8: bool) -> None:
    if engine not in FORMATS:
        raise UsageError(f"format {engine!r}", wanted=f"one of {list(FORMATS)}")
    known = PRECISIONS[engine] if not (int8 and engine == "onnx") else ("fp32",)
    if precision not in known:
        why = "with 8 bits" if int8 else "on processors"
        raise UsageError(
            f"precision {precision!r} for format {engine!r}, which {why} has {' and '.join(known)} alone",
            wanted=f"one of {list(known)}",
        )


def _write_part(
    folder: Path,
    predictor: Predictor,
    name: str,
    recorders: Mapping[str, Sequence[Recorder]],
    settings: Mapping[str, Any],
    progress: Progress,
) -> None:
    """One model with its networks, and those in it (``first``, ``locator``) in folders of their own."""
    model, inside = predictor.model, {"first": predictor.first, "locator": predictor.locator}
    for key, other in inside.items():
        if other is not None:
            (folder / key).mkdir()
            _write_part(folder / key, other, f"{name}{key}/", recorders, settings, progress)
    patch = model.plan.patch[-model.plan.dims :]
    shape = (1, model.spec.in_channels, *patch)
    files = []
    for fold in progress.over(range(model.folds), "Exporting", model.folds):
        stem = "network" if model.folds == 1 else f"network_{fold}"
        shown = [x.numpy() for x in recorders[name][fold].inputs] if settings["int8"] else []
        if settings["int8"] and not shown:
            raise ModelError(
                f"the network {name or ''}{stem} was asked nothing on the calibration cases",
                where=model.folder,
                wanted="calibration cases of the kind that the model is for",
                fix="give scans with --calibration",
            )
        files.append(_write(model, fold, folder / stem, shape, settings, shown))
    kept = {"activation_bytes": traced_bytes(predictor, shape)}
    save_exported(folder, model, {**settings, **kept}, files)


def _write(
    model: Model, fold: int, stem: Path, shape: tuple[int, ...], settings: Mapping[str, Any], shown: Sequence[Any]
) -> list[Path]:
    write = {"onnx": write_onnx, "openvino": write_openvino}[settings["name"]]
    try:
        return write(model.network(fold), stem, shape, half=settings["precision"] == "fp16", shown=shown)
    except (OSError, UsageError):
        raise
    except Exception as error:  # exporters raise whatever they meet in a network of one's own
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"network {model.spec.name!r} cannot be exported to {settings['name']} ({type(error).__name__}: {said})",
            where=model.folder,
            fix="take the other format, or PyTorch",
        ) from error


def _refuse_loss(parity: Parity, out: Path, cases: Sequence[Calibration]) -> None:
    """Raise ModelError where the export is worse than its model by more than ``MOST_LOST``."""
    if parity.empty and parity.int8:
        raise ModelError(
            f"PyTorch finds no label on {len(cases)} calibration cases, so that nothing tells what 8 bits lose",
            where=out,
            fix="give scans of the kind that the model is for with --calibration",
        )
    worst = max(parity.labels, key=lambda label: label.lost, default=None)
    if worst is not None and not worst.lost <= MOST_LOST:
        raise ModelError(
            f"not written: it loses {100 * worst.lost:.2f} Dice points of {worst.name} on {len(cases)} calibration "
            f"cases, against {'the truth' if worst.true is not None else 'PyTorch in fp32'}",
            where=out,
            wanted=f"at most {100 * MOST_LOST:.1f}",
            fix="export it in fp32, or calibrate on more scans like those it is for",
        )
