"""OTHERS' MODELS: nnU-Net and MONAI models in, as model folders of hilum's own; ONNX and OpenVINO out.

import_model            a folder of either kind to a model folder; nothing in it is run
export.export_model     a model folder to one that ONNX Runtime or OpenVINO runs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hilum.errors import UsageError
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
    """A model folder from a trained nnU-Net v2 model or a MONAI bundle; see ``import_nnunet`` and ``import_bundle``.

    Raises:
        UsageError: the folder is neither, or an option has no meaning for what it is.
        ModelError: it cannot be taken over; what is in the way is named.
    """
    from hilum.exchange.monai_bundle import import_bundle, is_bundle
    from hilum.exchange.nnunet import import_nnunet

    if not is_bundle(Path(path)):
        return import_nnunet(
            path,
            out,
            folds=folds,
            checkpoint=checkpoint,
            scheme=scheme,
            axes=axes,
            postprocessing=postprocessing,
        )
    idle = {"--folds": bool(folds), "--axes": bool(axes), "--postprocessing": postprocessing is not None}
    given = [name for name, used in {**idle, "--checkpoint": checkpoint != "final"}.items() if used]
    if given:
        raise UsageError(f"{' and '.join(given)} for a MONAI bundle", wanted="nothing: these are nnU-Net's", where=path)
    return import_bundle(path, out, scheme=scheme)
