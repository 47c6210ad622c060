import argparse
import importlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from serendipity.tools.cli import COMMANDS, CommandParser, main

WITH_BUILD = (
    "coevolve", "deploy", "feedback export",
    "graph export", "graph export anna", "graph interests", "graph show anna",
    "nearline status",
    "serve", "snapshot fetch store", "snapshot list", "snapshot publish v", "snapshot rollback",
    "snapshot send store", "snapshot verify", "users forget anna", "users list",
)  # fmt: skip
"""Commands that look for a build, as they are called; `evaluate` makes the one it is given."""


def parser_of(name: str) -> CommandParser:
    parser = CommandParser(prog=f"serendip {name}")
    importlib.import_module(f"serendipity.tools.{COMMANDS[name].module}").add_arguments(parser)
    return parser


def actions_of(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, argparse.Action]]:
    """Give every option and word of a command and its sub-commands, with the parser that lists it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from actions_of(below)
        elif action.dest != "help":
            yield parser, action


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


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_default_is_said_once_and_only_where_there_is_one(name):
    for parser, action in actions_of(parser_of(name)):
        formatter = parser._get_formatter()
        said = formatter._expand_help(action) if action.help else ""
        assert said.count("(default") <= 1, action.dest
        assert "default: None" not in said, action.dest
        assert "default: []" not in said, action.dest
        assert action.nargs != 0 or "(default" not in said, action.dest
        if action.option_strings and action.default not in (None, False, argparse.SUPPRESS) and action.default != []:
            assert f"(default: {action.default})" in said, action.dest


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_lists_what_it_reads_and_nothing_else(name):
    for _parser, action in actions_of(parser_of(name)):
        # Which settings are read is known once the command runs: tests/tools/test_nearline.py.
        if action.default == argparse.SUPPRESS or action.dest in ("action", "subject"):
            continue
        modules = [f"serendipity.tools.{COMMANDS[name].module}"]
        if name == "interests":
            modules.append("serendipity.tools.nearline")
        sources = "".join(Path(importlib.import_module(module).__file__).read_text() for module in modules)
        assert f"args.{action.dest}" in sources, action.dest


@pytest.mark.parametrize("words", WITH_BUILD)
def test_a_build_that_is_not_there_is_said_in_one_line_and_nothing_is_made(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    missing = "builds/none"
    try:
        status = main([*words.split(), "--build", missing])
    except SystemExit as ended:
        status = ended.code
    assert status in (1, 2)
    output = capsys.readouterr()
    said = output.err.splitlines()
    assert output.out == ""
    assert said[0].startswith(f"serendip {words.split()[0]}")
    assert missing in said[0]
    assert said[1:] in ([], ["What was published before stays."])
    assert list(tmp_path.iterdir()) == []


def test_no_command_that_looks_for_a_build_is_left_out():
    found = {
        parser.prog.removeprefix("serendip ")
        for name in COMMANDS
        for parser, action in actions_of(parser_of(name))
        if action.dest == "build"
    }
    known = {known for known in found for words in WITH_BUILD if words.startswith(known)}
    assert found - known == {"evaluate"}


@pytest.mark.parametrize("words", ["graph show anna"])
def test_the_usual_build_that_is_not_there_is_said_as_well(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(words.split())
    except SystemExit as ended:
        status = ended.code
    assert status in (1, 2)
    assert "var/complete-journey" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["build", "evaluate channel --seeds 0"])
def test_a_data_set_that_is_none_leaves_no_build_behind(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "--dataset", "nothing"]) == 1
    assert "'nothing': found neither a data set nor a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_command_names_those_there_are(capsys):
    assert main(["bild"]) == 2
    error = capsys.readouterr().err
    assert "bild" in error
    assert "build" in error


def test_an_unknown_subject_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "nothing"])
    assert "channel" in capsys.readouterr().err


def test_the_commands_that_the_readme_shows_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme = Path(__file__).parents[2] / "README.md"
    lines = [line for line in readme.read_text(encoding="utf-8").splitlines() if line.startswith("serendip ")]
    assert len(lines) > 10
    for line in lines:
        _, name, *words = shlex.split(line, comments=True)
        for word in words:
            if word.endswith(".txt"):
                Path(word).touch()
            elif "/" in word:
                Path(word).mkdir(parents=True, exist_ok=True)
        parser_of(name).parse_args(words)
