"""The user tower in this process, for use as a library and for hosts without Triton."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerTimeout, TowerUnavailable
from serendipity.channel.tower.tower import check_user_vectors
from serendipity.features import ONNX_FINGERPRINT, OUTPUT_NAME, TOWER_MODEL_PREFIX, TowerInputs


class LocalTower:
    """Runs user_tower.onnx, the same file that Triton serves on a CPU. One user takes 0.4 ms."""

    def __init__(self, path: Path) -> None:
        """Load the tower at `path`. Raises TowerUnavailable when it is missing or is none."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            fingerprint = self._session.get_modelmeta().custom_metadata_map[ONNX_FINGERPRINT]
        except Exception as error:
            # ONNX Runtime raises kinds of its own for what is missing, cut off or no ONNX.
            raise TowerUnavailable(f"{path}: cannot be loaded ({error}); expected a user tower as ONNX") from error
        self.model_name = TOWER_MODEL_PREFIX + fingerprint
        # The event loop must not wait for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tower")

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        """Run the tower; see UserTower.user_vectors."""
        if model_name != self.model_name:
            raise TowerUnavailable(f"{model_name}: this process has loaded {self.model_name}")
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._run, inputs)
        try:
            return await asyncio.wait_for(work, deadline.remaining)
        except TimeoutError as error:
            raise TowerTimeout(f"{model_name}: no answer in the time left") from error

    async def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)

    def _run(self, inputs: TowerInputs) -> NDArray[np.float32]:
        try:
            (vectors,) = self._session.run([OUTPUT_NAME], inputs.arrays())
        except Exception as error:
            # It raises kinds of its own for inputs that do not fit.
            raise TowerUnavailable(f"{self.model_name}: {type(error).__name__}: {error}") from error
        return check_user_vectors(vectors, inputs, self.model_name)
