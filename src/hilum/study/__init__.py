"""MANY RUNS -> ANSWER: networks or settings on the same folds, tuned, compared.

    STUDY.toml -> Study (what is compared) -> Jobs (one run each, in a process of its own)
               -> evaluations (one evaluator, the same held-out cases) -> comparison, study.json, report.html

Comes in: a TOML file, a folder. Goes out: the folder, complete. It trains nothing itself: each run is
``runs.train_and_validate``, as ``hilum train`` calls it.
"""

from hilum.study.design import Arm, Study, built_in_studies, read_study
from hilum.study.studying import plan_study, run_study

__all__ = ["Arm", "Study", "built_in_studies", "plan_study", "read_study", "run_study"]
