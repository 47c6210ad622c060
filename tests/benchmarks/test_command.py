from __future__ import annotations

from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["channel", "coea", "coevolution", "interest_gpt"])
def test_every_benchmark_says_what_it_measures_and_what_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"benchmarks.{name}.__main__" if name == "coea" else f"benchmarks.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: python -m benchmarks.{name} " in told
    assert module.__doc__.splitlines()[0] in told
