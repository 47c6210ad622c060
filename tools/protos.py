"""Generate the Python messages and stubs from protos/ (`make protos`; `make check` proves they are fresh).

python -m serendipity.tools.protos [--check]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

_ROOT = Path(__file__).resolve().parent.parent / "protos"
_PACKAGE = "serendipity/v1"


def generate(out: Path) -> None:
    """Write *_pb2.py, *_pb2.pyi and *_pb2_grpc.py below `out`. Raises SystemExit when protoc fails."""
    out.mkdir(parents=True, exist_ok=True)
    includes = str(resources.files("grpc_tools") / "_proto")
    files = sorted(str(p.relative_to(_ROOT)) for p in (_ROOT / _PACKAGE).glob("*.proto"))
    outputs = [f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}"]
    status = protoc.main(["protoc", f"-I{_ROOT}", f"-I{includes}", *outputs, *files])
    if status:
        raise SystemExit(f"protoc failed with status {status} on {', '.join(files)}")


def stale() -> list[str]:
    """Names of generated files that differ from what the protos give now."""
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        names = sorted(str(p.relative_to(fresh)) for p in fresh.rglob("*_pb2*"))
        return [n for n in names if not (_ROOT / n).is_file() or (_ROOT / n).read_bytes() != (fresh / n).read_bytes()]


def main() -> None:
    """Generate, or with --check fail when something is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when generated code is stale")
    if parser.parse_args().check:
        if names := stale():
            sys.exit(f"stale generated code: {', '.join(names)}; run `make protos`")
        return
    generate(_ROOT)


if __name__ == "__main__":
    main()
