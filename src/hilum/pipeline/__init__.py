"""One scan in, everything out: what the command line, the server and cohorts share.

``segment`` takes scans and a model and writes a folder of results; ``predict_cases`` writes the label maps of labelled
cases, beside their truths, for an evaluation; ``measure_files`` measures anybody's label maps.
"""

from __future__ import annotations

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
