"""`serendip evaluate channel` on a host's own folder: builds of two seeds, replayed and judged."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import pytest

from serendipity import layout
from serendipity.offline.evaluate.channel import ChannelEvaluationConfig
from serendipity.offline.evaluate.control_choice import CONTROLS, Grid
from serendipity.offline.evaluate.held_out_build import held_out_of, snapshot_of
from serendipity.offline.logs.errors import LogsError
from serendipity.tools import evaluate
from tests.fixtures.small_host import QUICK_BUILD, write_small_host


def _arguments(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    return parser.parse_args(["channel", *arguments])


def test_two_seeds_are_built_judged_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(ChannelEvaluationConfig, grid=Grid(factors=(8,), alphas=(1.0,), ridges=(100.0,), exponents=(0.5,)))
    monkeypatch.setattr(evaluate, "ChannelEvaluationConfig", quick)
    write_small_host(tmp_path / "shop", num_users=60, num_items=240)
    (tmp_path / "build.toml").write_text(QUICK_BUILD)
    build, out = tmp_path / "build", tmp_path / "out"
    given = ("--dataset", str(tmp_path / "shop"), "--config", str(tmp_path / "build.toml"), "--build", str(build))
    asked = (*given, "--seeds", "0", "1", "--out", str(out))
    assert evaluate.run(_arguments(*asked)) == 0

    report = json.loads((out / "channel.json").read_text())
    methods = {method["name"]: method for method in report["methods"]}
    assert [name for name in methods if methods[name]["kind"] == "control"] == [one.name for one in CONTROLS]
    assert methods["channel"]["seeds"] == [0, 1]
    assert report["answers"]["violations"] == 0
    assert report["cut"] == layout.read_manifest(snapshot_of(build)).events_until.seconds
    # The seed is the towers', and everything before them was made once.
    towers = {layout.read_manifest(snapshot_of(one)).tower.fingerprint for one in (build, Path(f"{build}-seed-1"))}
    assert len(towers) == 2
    page = capsys.readouterr().out
    assert "# The channel on shop" in page
    assert (out / "channel.md").is_file()

    # Of another data set, or with another share held out, nothing is built over it.
    write_small_host(tmp_path / "market", num_users=10, num_items=240)
    other = ("--dataset", str(tmp_path / "market"), "--config", str(tmp_path / "build.toml"), "--build", str(build))
    assert evaluate.run(_arguments(*other)) == 1
    assert f"{build}: found a build of {tmp_path / 'shop'} with hold_out 0.1" in capsys.readouterr().err
    assert evaluate.run(_arguments(*given, "--hold-out", "0.2")) == 1
    assert "expected one of" in capsys.readouterr().err


def test_a_build_that_held_nothing_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogsError, match="expected a build with hold_out above 0"):
        held_out_of(tmp_path)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (("--users", "-1"), "expected a whole number of at least 1"),
        (("--seeds", "-1"), "expected a whole number of at least 0"),
        (("--hold-out", "nan"), "expected a share above 0 and below 1"),
        (("--hold-out", "2"), "expected a share above 0 and below 1"),
        (("--hold-out", "0"), "expected a share above 0 and below 1"),
        (("--out", __file__), "found a file, expected a directory"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(
    option: tuple[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _arguments(*option)
    error = capsys.readouterr().err
    assert option[0] in error
    assert expected in error


def test_a_data_set_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.run(_arguments("--dataset", str(tmp_path / "none"), "--build", str(tmp_path / "b"))) == 1
    assert "found neither a data set nor a folder of that name" in capsys.readouterr().err
