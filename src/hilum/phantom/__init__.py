"""NOTHING -> SCAN: synthetic abdominal CT with exact labels.

Comes in: a seed. Goes out: CT, labels (kidney, tumour, cyst; or kidneys, liver, spleen) and the facts behind them, in
memory (``make_case``) or as a folder of NIfTI files (``write_set``).
"""

from __future__ import annotations

from hilum.phantom.case import PhantomCase, make_case
from hilum.phantom.sets import WrittenCase, write_set

__all__ = ["PhantomCase", "WrittenCase", "make_case", "write_set"]
