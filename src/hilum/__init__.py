"""hilum: from a CT scan to a labelled, measured, explained picture of an organ and its tumours.

    scan = read_scan("ct.nii.gz")                        SCAN -> VOLUME   HU and where they lie
    model = load_model("demo")                           a folder: weights, plan, labels, card
    labels = Predictor(model).segment(scan)              VOLUME -> LABELS on the scan's own grid
    numbers = measure(labels, model.scheme, scan)        LABELS -> NUMBERS
    write_labels("labels.nii.gz", labels)                read back and compared
    segment(["*.nii.gz"], "demo", "results")             all of it, for many scans, with pages
    train(recipe("default"), dataset, "runs/mine")       CASES -> MODEL
    evaluate(truths, predictions, "kits23", "scores")    LABELS + TRUTH -> SCORES

Research software, not a medical device. Every name is imported when it is first used, so that ``import hilum`` is
instant and only what computes with networks loads PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "HilumError": "hilum.errors",
    "LabelScheme": "hilum.labels",
    "Predictor": "hilum.inference.predict",
    "Volume": "hilum.volume",
    "compare": "hilum.judge.compare",
    "evaluate": "hilum.judge.evaluate",
    "load_model": "hilum.model",
    "make_case": "hilum.phantom",
    "measure": "hilum.results.measure",
    "open_dataset": "hilum.datasets",
    "read_labels": "hilum.scans",
    "read_scan": "hilum.scans",
    "recipe": "hilum.config:read_recipe",
    "scheme": "hilum.labels:scheme_from",
    "segment": "hilum.pipeline",
    "train": "hilum.training.loop",
    "write_labels": "hilum.scans",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hilum' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, other = _HOMES[name].partition(":")
    return getattr(import_module(module), other or name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
