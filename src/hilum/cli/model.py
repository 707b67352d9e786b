"""``hilum model``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from hilum.cli.words import add_verb, answered, progress_of


def model_list(options: argparse.Namespace) -> int:
    """Models that ship with hilum; networks that can be trained."""
    from hilum.model import built_in_models

    models = built_in_models()
    lines = [f"{name:12} {text}" for name, text in models.items()]
    if options.networks:
        from hilum.networks import overview

        return answered(options, *overview())
    return answered(options, models, "\n".join(lines))


def model_show(options: argparse.Namespace) -> int:
    """A model's card, plan and labels."""
    from hilum.model import load_model

    facts = load_model(options.model).facts()
    return answered(options, facts, json.dumps(facts, indent=1, ensure_ascii=False))


def model_import(options: argparse.Namespace) -> int:
    """A trained nnU-Net v2 model or a MONAI bundle as a model folder."""
    from hilum.exchange import import_model
    from hilum.labels import scheme_from

    made = import_model(
        options.path,
        options.out,
        folds=options.folds or (),
        checkpoint=options.checkpoint,
        scheme=scheme_from(options.labels) if options.labels else None,
        axes=options.axes,
        postprocessing=options.postprocessing,
    )
    return answered(options, made.to_json(), made.text())


def model_export(options: argparse.Namespace) -> int:
    """A model for another engine, and how far it is from PyTorch."""
    from hilum.exchange.export import export_model

    made = export_model(
        options.model,
        options.out,
        engine=options.format,
        precision=options.precision,
        int8=options.int8,
        calibration=options.calibration or (),
        progress=progress_of(options),
    )
    return answered(options, made.to_json(), made.text())


def model_words(verbs: Any) -> None:
    """Words of ``hilum model ...``."""
    parser = verbs.add_parser("model", help="models: list, show, import, export")
    parts = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    words = add_verb(parts, "list", model_list, "models that ship with hilum", "hilum model list")
    words.add_argument("--networks", action="store_true", help="networks that can be trained instead")
    words = add_verb(parts, "show", model_show, "a model's card, plan and labels", "hilum model show demo")
    words.add_argument("model", metavar="MODEL")
    text = "take over a trained nnU-Net v2 model or a MONAI bundle as a model folder; no pickle is run"
    example = "hilum model import nnUNet_results/Dataset220_KiTS2023/nnUNetTrainer__nnUNetPlans__3d_fullres --out kits"
    words = add_verb(parts, "import", model_import, text, example)
    words.add_argument("path", metavar="PATH", help="a trainer's folder of nnUNet_results, or a bundle's folder")
    words.add_argument("--out", required=True, metavar="MODEL", help="the model folder to write")
    words.add_argument("--folds", nargs="+", metavar="K", help="nnU-Net: which folds (default: all numbered ones)")
    words.add_argument("--checkpoint", default="final", choices=["final", "best"], help="nnU-Net: which one of a fold")
    words.add_argument("--labels", metavar="SCHEME", help="what the labels mean, e.g. kits or lits, instead of its own")
    words.add_argument("--axes", default="", metavar="CODES", help="nnU-Net: axes of the training arrays, e.g. SPL")
    words.add_argument(
        "--postprocessing", metavar="FILE", help="nnU-Net: its postprocessing.json, if it lies elsewhere"
    )
    text = "write a model for ONNX Runtime or OpenVINO and compare it with PyTorch"
    words = add_verb(parts, "export", model_export, text, "hilum model export demo --format openvino --int8 --out fast")
    words.add_argument("model", metavar="MODEL", help="a model folder, a run, or a name")
    words.add_argument("--out", required=True, metavar="PATH", help="the model folder to write")
    words.add_argument("--format", required=True, choices=["onnx", "openvino"], help="what shall run it")
    words.add_argument(
        "--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="fp16: weights in half the bytes"
    )
    words.add_argument("--int8", action="store_true", help="quantise to 8 bits on the calibration cases")
    words.add_argument(
        "--calibration", nargs="+", metavar="SCAN", help="scans to compare and quantise on (default: phantoms)"
    )
