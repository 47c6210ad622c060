"""The user tower in this process, for use as a library: the exported program, without a server."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serendipity.channel.deadline import Deadline
from serendipity.channel.errors import TowerTimeout, TowerUnavailable
from serendipity.channel.tower.tower import check_user_vectors
from serendipity.features import INPUT_NAMES, TOWER_MODEL_PREFIX, TowerInputs, tower_fingerprint


class LocalTower:
    """Runs user_tower.pt2, the same file that Triton serves."""

    def __init__(self, path: Path) -> None:
        """Load the program at `path`. Raises TowerUnavailable when it is missing or is no exported program."""
        # Imported here: torch is no part of what the service needs, and takes seconds to import.
        import torch

        self._torch: Any = torch
        try:
            self.model_name = TOWER_MODEL_PREFIX + tower_fingerprint(path)
            self._program: Any = torch.export.load(path).module()
        except Exception as error:
            # torch raises whatever its zip reader, its schema or pickle raise.
            raise TowerUnavailable(f"{path}: cannot be loaded ({error}); expected an exported user tower") from error
        # One thread: torch has threads of its own, and the event loop must not wait for it.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tower")

    async def user_vectors(self, model_name: str, inputs: TowerInputs, deadline: Deadline) -> NDArray[np.float32]:
        """Run the program; see UserTower.user_vectors."""
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
            with self._torch.inference_mode():
                tensors = (self._torch.from_numpy(getattr(inputs, name)) for name in INPUT_NAMES)
                vectors: NDArray[np.float32] = self._program(*tensors).numpy()
        except Exception as error:
            # torch raises RuntimeError, AssertionError and its own kinds for inputs it was not exported for.
            raise TowerUnavailable(f"{self.model_name}: {type(error).__name__}: {error}") from error
        return check_user_vectors(vectors, inputs, self.model_name)
