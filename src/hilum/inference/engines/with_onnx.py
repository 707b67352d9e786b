"""Networks run by ONNX Runtime on the processor.

Comes in: the ``.onnx`` files of an exported model. Goes out: an ``Engine``.
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


class OnnxEngine:
    """See ``engines.Engine``. ONNX Runtime's convolutions on processors are fp32 or int8, whatever weights are kept in.

    Args:
        exported: from a model folder.
        threads: 0 means one for each core.

    Raises:
        UsageError: the extra ``onnx`` is not installed.
        ModelError: a file is no network that ONNX Runtime can run.
    """

    def __init__(self, exported: Exported, threads: int = 0):
        runtime = require("onnxruntime", "onnx")
        self.precision = "int8" if exported.int8 else "fp32"
        self._options = runtime.SessionOptions()
        self._options.intra_op_num_threads = threads or cpu_count()
        self._options.log_severity_level = 3
        # threads that wait in circles between patches take the cores from resampling and writing
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.networks = tuple(self._network(runtime, files[0]) for files in exported.networks)

    def _network(self, runtime: Any, file: Path) -> Network:
        try:
            session = runtime.InferenceSession(str(file), self._options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class but this
            said = str(error).strip().partition("\n")[0]
            raise ModelError(f"cannot be opened by ONNX Runtime ({said})", where=file, fix="export it again") from None
        name = session.get_inputs()[0].name

        def forward(images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(None, {name: images.contiguous().numpy()})[0])

        return lambda images: one_by_one(images, forward)
