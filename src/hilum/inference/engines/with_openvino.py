"""Networks run by OpenVINO on the processor.

Comes in: the ``.xml`` and ``.bin`` files of an exported model. Goes out: an ``Engine``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hilum.cores import cpu_count
from hilum.errors import ModelError
from hilum.inference.engines import Network, one_by_one, require

if TYPE_CHECKING:
    from hilum.model import Exported

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoEngine:
    """See ``engines.Engine``.

    OpenVINO computes in less than fp32 by itself where the processor can, so that the precision is always said. Where
    the processor lacks a type OpenVINO takes another one: ``precision`` says which.

    Args:
        exported: from a model folder.
        threads: 0 means one for each core.

    Raises:
        UsageError: the extra ``openvino`` is not installed.
        ModelError: a file is no network that OpenVINO can run.
    """

    def __init__(self, exported: Exported, threads: int = 0):
        library = require("openvino", "openvino")
        self._core = library.Core()
        self._config = {
            "INFERENCE_PRECISION_HINT": _HINTS[exported.precision],
            "INFERENCE_NUM_THREADS": threads or cpu_count(),
            "NUM_STREAMS": 1,
        }
        self.precision = "int8" if exported.int8 else ""
        self.networks = tuple(self._network(files[0], files[1]) for files in exported.networks)

    def _network(self, xml: Path, weights: Path) -> Network:
        try:
            compiled = self._core.compile_model(self._core.read_model(str(xml), str(weights)), "CPU", self._config)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"cannot be opened by OpenVINO ({said})", where=xml, fix="export it again") from None
        self.precision = self.precision or _short(compiled.get_property("INFERENCE_PRECISION_HINT"))
        request = compiled.create_infer_request()

        def forward(images: torch.Tensor) -> torch.Tensor:
            outputs = request.infer([images.contiguous().numpy()], share_inputs=True, share_outputs=False)
            return torch.from_numpy(outputs[0])

        return lambda images: one_by_one(images, forward)


def _short(kind: Any) -> str:
    """``fp32`` of OpenVINO's ``f32``."""
    name = kind.get_type_name() if hasattr(kind, "get_type_name") else str(kind)
    return {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}.get(name, name)
