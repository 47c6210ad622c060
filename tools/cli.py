"""The console command `serendip`: one sub-command per job, each in its own module of this package.

    serendip COMMAND [options]        serendip COMMAND --help

A command's module is imported only when it is chosen, so the base install (the client) runs
`serendip recall` without the builders' packages.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True)
class Command:
    """A sub-command: module with add_arguments(parser) and run(args) -> exit status, and the extra it needs."""

    module: str
    extra: str
    help: str


COMMANDS = {
    "logs": Command("logs", "offline", "look at a host's logs: what is in them, what is wrong, what they are good for"),
    "build": Command("build", "offline,serve", "run all builders in order: logs → towers → snapshot → publish"),
    "serve": Command("serve", "serve", "run the channel: gRPC workers and the admin port"),
    "recall": Command("recall", "cli", "ask a running channel for candidates and print them"),
    "triton": Command("triton", "serve", "run the packaged (or an installed) tritonserver on a model repository"),
    "deploy": Command("deploy", "serve", "place a snapshot's models, load them on Triton, then publish the snapshot"),
    "snapshot": Command("snapshot", "serve", "verify, list, publish or roll back snapshots"),
    "evaluate": Command("evaluate", "evaluation", "measure the channel on held-out time, beside tuned controls"),
    "coevolve": Command("coevolution", "llm", "run further cycles of the Novelty and the Relevance LLM on new logs"),
    "nearline": Command("nearline", "serve", "show the queues of what is generated near-line, and what failed"),
    "graph": Command("graph", "offline", "show or export what users may want, what they hold, and the graph of all"),
    "users": Command("users", "serve", "forget users, or list those forgotten"),
    "feedback": Command("feedback", "serve", "export the feedback log as host events"),
    "experiment": Command(
        "experiment", "serve,offline", "compare the arms of an experiment by serving log and feedback"
    ),
    "demo": Command("demo", "demo", "build from public data, start everything, call it as a host would"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        print(f"serendip: unknown command {name!r}; expected one of: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    try:
        module = importlib.import_module(f"serendipity.tools.{command.module}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("serendipity"):
            raise
        print(
            f"serendip {name}: the package {error.name!r} is missing; install it with\n"
            f"    pip install 'serendipity-recall[{command.extra}]'",
            file=sys.stderr,
        )
        return 2
    parser = CommandParser(prog=f"serendip {name}", description=module.__doc__)
    module.add_arguments(parser)
    status = module.run(parser.parse_args(rest))
    return int(status or 0)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "usage: serendip COMMAND [options]\n\n" + "\n".join(lines) + "\n\nserendip COMMAND --help says more."


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the module docstrings' line breaks, and shows a default where there is one and the text does not say it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, []) or "(default: " in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class CommandParser(argparse.ArgumentParser):
    """Reads a command's words, and those of its actions. What is wrong with them it says in one line, status 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **options})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and exit."""
        self.exit(2, f"{self.prog}: {message}\n")


if __name__ == "__main__":
    sys.exit(main())
