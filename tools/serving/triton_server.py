"""A running tritonserver, started on a model repository; it loads and unloads models only on request."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from serendipity.tools.serving.triton_program import TritonDown, TritonError, TritonProgram, find_program

LOOPBACK = "127.0.0.1"
_LOG_LINES = 3


class TritonServer:
    """A running tritonserver; a context manager that stops it.

    grpc_port, http_port, metrics_port: where it listens; url, grpc_url: host:port of HTTP, which answers calls, and of
    gRPC, which loads models; pid; log_path: its output.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], address: str, ports: tuple[int, int, int], log_path: Path, scratch: Path
    ) -> None:
        self._process = process
        self._scratch = scratch
        self.grpc_port, self.http_port, self.metrics_port = ports
        self.url = f"{_reachable(address)}:{self.http_port}"
        self.grpc_url = f"{_reachable(address)}:{self.grpc_port}"
        self.log_path = log_path
        atexit.register(self.stop)

    @property
    def shared_memory_prefix(self) -> str:
        """Start of the names of its Python backend's regions in /dev/shm."""
        return _shared_memory_prefix(self._scratch)

    @property
    def pid(self) -> int:
        """Process id of tritonserver."""
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the process is alive."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise TritonDown with the last lines of its log when the server has ended."""
        if not self.is_running():
            status = self._process.returncode
            how = f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"
            raise TritonDown(f"tritonserver (pid {self.pid}) {how}; {self.last_lines()}")

    def listens(self) -> bool:
        """Tell whether HTTP and metrics ports accept connections."""
        host = self.url.rpartition(":")[0]
        for port in (self.http_port, self.metrics_port):
            with socket.socket() as connection:
                if connection.connect_ex((host, port)) != 0:
                    return False
        return True

    def last_lines(self) -> str:
        """The end of the log in one line, for messages."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        # The tables of options and models that it prints at the start would crowd out the reason.
        lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] not in "|+"][-_LOG_LINES:]
        return f"last lines of {self.log_path}: " + " / ".join(lines or ["(empty)"])

    def stop(self, timeout: float = 10.0) -> None:
        """End the server: SIGTERM, then, after `timeout` seconds, SIGKILL to it and its Python stubs."""
        atexit.unregister(self.stop)
        if self.is_running():
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        # The server leads a process group of its own; after a crash its stubs may still be in it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for region in Path("/dev/shm").glob(f"{self.shared_memory_prefix}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def launch(
    repository: Path,
    *,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    address: str = LOOPBACK,
    log_path: Path | None = None,
    start_timeout: float = 60.0,
    program: TritonProgram | None = None,
    arguments: Sequence[str] = (),
) -> TritonServer:
    """Start tritonserver on `repository` with EXPLICIT model control, nothing loaded, and wait until it is ready.

    Ports that are 0 are chosen free. log_path: where its output goes, appended (default: a temporary file, kept).
    start_timeout: seconds until it must be ready. arguments: further options of tritonserver, as they are.

    It ends with the thread that calls this, however that ends.

    Raises TritonError when it cannot be found or started; TritonDown, with the last lines of its log, when it ends or
    is not ready in time.
    """
    if not repository.is_dir():
        raise TritonError(f"{repository}: not a directory; expected a Triton model repository")
    program = program or find_program()
    wanted = (grpc_port, http_port, metrics_port)
    for attempts_left in (2, 1, 0):
        ports = _choose_ports(wanted, address)
        log_path = log_path or temporary_log()
        server = _start(program, repository, address, ports, log_path, arguments)
        try:
            _wait_until_ready(server, time.monotonic() + start_timeout)
        except TritonError:
            server.stop()
            # Another process may take a port between our choosing it and the server binding it.
            if attempts_left and 0 in wanted and not all(_is_free(address, port) for port in ports):
                continue
            raise
        except BaseException:
            server.stop()
            raise
        return server
    raise AssertionError("the last attempt returns or raises")


def _start(
    program: TritonProgram,
    repository: Path,
    address: str,
    ports: tuple[int, int, int],
    log_path: Path,
    arguments: Sequence[str],
) -> TritonServer:
    scratch = Path(tempfile.mkdtemp(prefix="tritonserver-"))
    command = [
        # A launcher that is killed takes its server along.
        *("setpriv", "--pdeathsig", "TERM"),
        str(program.executable),
        f"--model-repository={repository.resolve()}",
        "--model-control-mode=explicit",
        f"--grpc-address={address}",
        f"--grpc-port={ports[0]}",
        f"--http-address={address}",
        f"--http-port={ports[1]}",
        f"--metrics-address={address}",
        f"--metrics-port={ports[2]}",
        "--exit-timeout-secs=5",
        # The configurations are complete. To complete one, Triton would start a second Python and import torch there.
        "--disable-auto-complete-config",
        # Importing torch can take longer than the default of 30 s while other models load on the same cores.
        "--backend-config=python,stub-timeout-seconds=120",
        # Regions of our own name can be removed when the server is killed.
        f"--backend-config=python,shm-region-prefix-name={_shared_memory_prefix(scratch)}",
    ]
    if program.backends is not None:
        # The package keeps the stubs apart from the backend; the backend wants its own directory to hold one.
        backend = scratch / "backends" / "python"
        backend.mkdir(parents=True)
        for name, path in program.backends.items():
            (backend / name).symlink_to(path)
        command.append(f"--backend-directory={backend.parent}")
    try:
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise TritonError(f"{command[0]}: cannot be started ({error})") from error
    return TritonServer(process, address, ports, log_path, scratch)


def _wait_until_ready(server: TritonServer, deadline: float) -> None:
    while True:
        server.check()
        try:
            # gRPC is up before it; a failure of the other two ends the server.
            with urllib.request.urlopen(f"http://{server.url}/v2/health/ready", timeout=1.0):
                if server.listens():
                    return
        except OSError:
            pass  # not listening, or not ready yet
        if time.monotonic() > deadline:
            raise TritonDown(f"tritonserver (pid {server.pid}) was not ready in time; {server.last_lines()}")
        time.sleep(0.05)


def _choose_ports(wanted: tuple[int, int, int], address: str) -> tuple[int, int, int]:
    """Replace zeros by free ports, all different. Raises TritonError when a port that was asked for is taken."""
    with contextlib.ExitStack() as held:
        chosen = []
        for port in wanted:
            if port and not _is_free(address, port):
                raise TritonError(f"port {port} on {address} is taken; choose another, or 0 for a free one")
            if port == 0:
                listener = held.enter_context(socket.socket())
                listener.bind((address, 0))
                port = int(listener.getsockname()[1])
            chosen.append(port)
        return chosen[0], chosen[1], chosen[2]


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as listener:
        # As the server does: connections of a server that just ended must not keep its port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
        return True


def temporary_log() -> Path:
    """Make an empty file for a server's output."""
    handle, name = tempfile.mkstemp(prefix="tritonserver-", suffix=".log")
    os.close(handle)
    return Path(name)


def _reachable(address: str) -> str:
    return LOOPBACK if address in ("0.0.0.0", "") else address


def _shared_memory_prefix(scratch: Path) -> str:
    return f"{scratch.name}_"
