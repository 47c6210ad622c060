import argparse
import importlib

import pytest

from serendipity.tools import evaluate
from serendipity.tools.cli import COMMANDS, main


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_what_it_does_and_what_it_takes(name, capsys):
    module = importlib.import_module(f"serendipity.tools.{COMMANDS[name].module}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert module.__doc__
    assert callable(module.run)
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"serendip {name}" in capsys.readouterr().out


def test_every_subject_can_be_run():
    for module in evaluate.SUBJECTS.values():
        assert callable(importlib.import_module(module).run)


def test_an_unknown_command_names_those_there_are(capsys):
    assert main(["bild"]) == 2
    error = capsys.readouterr().err
    assert "bild" in error
    assert "build" in error


def test_an_unknown_subject_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "nothing"])
    assert "towers" in capsys.readouterr().err
