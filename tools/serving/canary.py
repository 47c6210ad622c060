"""Whether the models of a tritonserver answer, which is more than that it calls them ready.

It goes on calling a model ready whose Python processes were killed or hang, and starts no others. Every model is placed
with a question that it can answer; one that does not is unloaded and loaded again, which starts its processes anew.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from serendipity.features import TOWER_MODEL_PREFIX
from serendipity.tools.serving.triton_program import TritonDown
from serendipity.tools.serving.triton_server import TritonServer
from serendipity.triton import Triton, TritonError

CANARY = "canary.json"
"""The question, its tensors written as in a JSON request of Triton's HTTP protocol, beside a model's config.pbtxt."""

_LOOK_SECONDS, _CHECK_SECONDS = 2.0, 0.5
_HUNG_SECONDS = 30.0
"""Triton told over HTTP to load a model answers nothing else over HTTP for a while."""
_TOWER_SECONDS, _OTHERS_SECONDS = 30.0, 300.0
_TRIES = 4
"""Of several processes behind a model one may have died."""
_BUSY = frozenset({"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE"})
"""Statuses of a question that say nothing: the queue is full, or the model is being loaded."""


def request_of(question: Mapping[str, NDArray[Any]]) -> str:
    """Write a question as it is asked."""
    inputs = []
    for name, values in question.items():
        cells = [cell.decode() if isinstance(cell, bytes) else cell for cell in values.ravel().tolist()]
        datatype = np_to_triton_dtype(values.dtype)
        inputs.append({"name": name, "shape": values.shape, "datatype": datatype, "data": cells})
    return json.dumps({"inputs": inputs})


def question_of(request: bytes) -> dict[str, NDArray[Any]]:
    """Read what `request_of` wrote. Triton would not: it takes no FP16 as JSON."""
    question = {}
    for tensor in json.loads(request)["inputs"]:
        cells = [cell.encode() if isinstance(cell, str) else cell for cell in tensor["data"]]
        question[tensor["name"]] = np.array(cells, triton_to_np_dtype(tensor["datatype"])).reshape(tensor["shape"])
    return question


async def keep_answering(server: TritonServer, repository: Path) -> NoReturn:
    """See that the models answer, for as long as the server does.

    User towers are asked whenever they have answered nobody for two seconds, others when calls to them have failed.
    Raises TritonDown when the server has ended, or has not answered for half a minute, or a model that was loaded again
    does not answer either.
    """
    triton = Triton(server.url)
    counts: dict[str, tuple[int, int]] = {}
    asked: dict[str, asyncio.Task[None]] = {}
    heard = time.monotonic()
    try:
        async with asyncio.TaskGroup() as questions:
            while True:
                for _ in range(round(_LOOK_SECONDS / _CHECK_SECONDS)):
                    await asyncio.sleep(_CHECK_SECONDS)
                    server.check()
                try:
                    statistics = (await triton.request("GET /v2/models/stats"))["model_stats"]
                except TritonError as error:
                    if (silent := time.monotonic() - heard) > _HUNG_SECONDS:
                        message = f"tritonserver (pid {server.pid}) has not answered for {silent:.0f} s: {error}"
                        raise TritonDown(message) from error
                    continue
                heard = time.monotonic()
                for model in statistics:
                    name, ends = model["name"], model["inference_stats"]
                    before = counts.get(name, (0, 0))
                    counts[name] = succeeded, failed = ends["success"]["count"], ends["fail"]["count"]
                    waits = name.startswith(TOWER_MODEL_PREFIX) and succeeded == before[0]
                    if (waits or failed > before[1]) and (name not in asked or asked[name].done()):
                        asked[name] = questions.create_task(_see_to(triton, server, repository / name))
    except* TritonDown as down:
        raise down.exceptions[0] from None
    finally:
        await triton.close()


async def _see_to(triton: Triton, server: TritonServer, model: Path) -> None:
    """Ask a model, and load it again when it does not answer. Raises TritonDown when that does not help."""
    if not (fault := await _fault(triton, model)):
        return
    print(f"serendip triton: {model.name} does not answer: {fault}; loading it again", file=sys.stderr, flush=True)
    try:
        async with triton_grpc.InferenceServerClient(server.grpc_url) as client:
            await client.unload_model(model.name)
            await client.load_model(model.name)
    except triton_grpc.InferenceServerException as error:
        fault = error.message()
    else:
        fault = await _fault(triton, model)
    if fault:
        raise TritonDown(f"tritonserver (pid {server.pid}): {model.name}, loaded again, does not answer: {fault}")
    print(f"loaded {model.name}", flush=True)


async def _fault(triton: Triton, model: Path) -> str:
    """Ask a model and say why it does not answer; empty if it does, or if nobody knows what to ask it."""
    try:
        question = question_of((model / CANARY).read_bytes())
    except OSError:
        return ""
    tower = model.name.startswith(TOWER_MODEL_PREFIX)
    seconds = _TOWER_SECONDS if tower else _OTHERS_SECONDS
    faults = []
    for _ in range(_TRIES):
        try:
            await triton.infer(model.name, question, (), seconds)
        except TritonError as error:
            if error.status in _BUSY:
                return ""
            faults.append(str(error))
            # It must be so for a while: a machine that is busy holds up healthy processes, too.
            await asyncio.sleep(_CHECK_SECONDS)
        if len(faults) > 1 or not (tower or faults):
            break
    return faults[-1] if len(faults) > 1 else ""
