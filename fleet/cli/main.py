"""`python -m fleet`: reads the command line, calls a command's `run`, prints text or JSON, exits as errors.py says.

A module with commands has `add_commands(commands)`, and its name stands in MODULES. It makes a parser for each command
with `command(commands, name, summary, more)` and sets two defaults on it: `run(options) -> dict`, the result as
output.schema.json has it (an `exit_code` in it is taken out), and `text(result) -> str` for a person.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from typing import Any

from edge_agent.core.errors import AgentError

from fleet import errors
from fleet.errors import FleetError, SourceError, StorageError

CODES = "\n".join((errors.__doc__ or "").splitlines()[2:])
OUTPUT_VERSION = 1
EXIT_PIPE = 128 + 13  # as a shell says of a program that SIGPIPE ended
MODULES: tuple[str, ...] = (
    "fleet.cli.publish",
    "fleet.cli.releases",
    "fleet.cli.keys",
    "fleet.cli.steps",
    "fleet.cli.rollouts",
    "fleet.cli.audit_logs",
)
Commands = Any  # argparse gives what add_subparsers returns no public name


def parser(modules: tuple[str, ...] = MODULES) -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="fleet",
        description="Publishes releases, drives rollouts and judges them.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--json", action="store_true", help="one JSON object on stdout, errors too (output.schema.json)")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in modules:
        importlib.import_module(module).add_commands(commands)
    return root


def command(commands: Commands, name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
    """A new command's parser; `--json` may stand after it too."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.{' ' + more if more else ''}"
    )
    added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON object on stdout")
    return added


def fleet_name(text: str) -> str:
    """An argument that becomes a folder's name, as an inventory may say it."""
    from fleet.inventory.model import NAME  # what a rollout's other steps need not import

    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a fleet's name: letters, digits, '.', '_' and '-'")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code. Only a defect ends in a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    # A rollout takes a dozen such steps: they do not wait until what publishes is imported.
    steps = [each for each in given if not each.startswith("-")][:1] == ["wave"]
    options = parser(("fleet.cli.steps",) if steps else MODULES).parse_args(given)
    try:
        result = options.run(options)
        code = int(result.pop("exit_code", 0))
        if options.json:
            _print_json(options, result)
        else:
            print(options.text(result))
        sys.stdout.flush()
        return code
    except AgentError as error:  # the fleet's own, and of what it takes from the agent: reading an archive
        return _fail(options, error.as_json(), str(error))
    except BrokenPipeError:  # `fleet release list | head -1`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_PIPE
    except OSError as error:
        told = _operating_system(error)
        return _fail(options, told.as_json(), str(told))
    except KeyboardInterrupt:
        print("interrupted; run it again: it goes on where it stopped", file=sys.stderr)
        return errors.EXIT_INTERRUPTED


def _name(options: argparse.Namespace) -> str:
    return " ".join(filter(None, (options.command, getattr(options, "action", None))))


def _print_json(options: argparse.Namespace, result: dict[str, Any]) -> None:
    print(json.dumps({"schema_version": OUTPUT_VERSION, "command": _name(options), **result}, allow_nan=False))


def _fail(options: argparse.Namespace, error: dict[str, Any], text: str) -> int:
    if options.json:
        with contextlib.suppress(BrokenPipeError):
            _print_json(options, error)
    else:
        print(f"fleet {_name(options)}: {text}", file=sys.stderr)
    return int(error["exit_code"])


def _operating_system(error: OSError) -> FleetError:
    where = str(error.filename or "the operating system")
    what = error.strerror or str(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return SourceError(where, what, "an answer", "check the network, then run it again")
    return StorageError(where, what, "", "make room, or check owner and permissions, then run it again")
