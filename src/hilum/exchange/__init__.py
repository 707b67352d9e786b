"""OTHERS' MODELS: nnU-Net's models in, as model folders of hilum's own.

import_model    a trained nnU-Net v2 model to a model folder; nothing in it is run
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.labels import LabelScheme

__all__ = ["import_model"]


def import_model(
    path: str | Path,
    out: str | Path,
    *,
    folds: Sequence[str] = (),
    checkpoint: str = "final",
    scheme: LabelScheme | None = None,
    axes: str = "",
    postprocessing: str | Path | None = None,
) -> Any:
    """A model folder from a trained nnU-Net v2 model; see ``import_nnunet``.

    Raises:
        UsageError: the folder is none.
        ModelError: it cannot be taken over; what is in the way is named.
    """
    from hilum.exchange.nnunet import import_nnunet

    return import_nnunet(
        path, out, folds=folds, checkpoint=checkpoint, scheme=scheme, axes=axes, postprocessing=postprocessing
    )
