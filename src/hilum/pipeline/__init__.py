"""One scan in, everything out: what the command line, the server and cohorts share.

``segment`` takes scans and a model and writes a folder of results; ``predict_cases`` writes the label maps of labelled
cases, beside their truths, for an evaluation; ``measure_files`` measures anybody's label maps; ``redraw_case`` draws a
case's page again. Each is imported when it is first used: measuring and drawing never load PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilum.pipeline.measuring import MeasureRun, measure_files
    from hilum.pipeline.redrawing import redraw_case
    from hilum.pipeline.segmenting import SegmentRun, segment
    from hilum.pipeline.validating import PredictedCases, predict_cases

__all__ = [
    "MeasureRun",
    "PredictedCases",
    "SegmentRun",
    "measure_files",
    "predict_cases",
    "redraw_case",
    "segment",
]
_HOMES = {
    "MeasureRun": "measuring",
    "PredictedCases": "validating",
    "SegmentRun": "segmenting",
    "measure_files": "measuring",
    "predict_cases": "validating",
    "redraw_case": "redrawing",
    "segment": "segmenting",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
