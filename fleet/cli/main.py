"""`python -m fleet`: parse the command line, run one command, print text or JSON, exit with a code (errors.py).

MODULES lists the modules that define commands. Each module has a function `add_commands(commands)`. For each command,
this function creates a parser with `command(commands, name, summary, details)` and sets two functions as defaults of
the parser. `run(options)` returns the result: an `Output`, or a dict with the fields of output.schema.json.
`text(result)` formats the result for people. If the result has a field `exit_code`, this field sets the exit code and
is not printed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from edge_agent.core.errors import AgentError
from pydantic import BaseModel

from fleet import errors
from fleet.errors import FleetError, SourceError, StorageError

CODES = "\n".join((errors.__doc__ or "").splitlines()[2:])
OUTPUT_VERSION = 1
EXIT_PIPE = 128 + 13  # the exit code that a shell reports for SIGPIPE
MODULES: tuple[str, ...] = (
    "fleet.cli.publish",
    "fleet.cli.releases",
    "fleet.cli.keys",
    "fleet.cli.steps",
    "fleet.cli.rollouts",
    "fleet.cli.audit",
    "fleet.cli.logs",
)
Commands = Any  # the result of add_subparsers, a type without a public name


class Output(BaseModel):
    """The base class for the results of commands. output.schema.json describes the JSON that is printed."""


def parser(modules: tuple[str, ...] = MODULES) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the commands that the given modules define."""
    root = argparse.ArgumentParser(
        prog="fleet",
        description="Publishes releases, and rolls them out to a fleet of devices.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument(
        "--json", action="store_true", help="print results and errors as one JSON object on stdout (output.schema.json)"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in modules:
        importlib.import_module(module).add_commands(commands)
    return root


def command(commands: Commands, name: str, summary: str, details: str = "") -> argparse.ArgumentParser:
    """Add the parser of a command. The command also accepts `--json` after its name.

    Args:
        commands: The object of argparse to which the command is added: the commands of `fleet`, or the actions of
            one command.
        name: The name of the command.
        summary: One line for the list of commands, without a full stop at its end.
        details: Further sentences for the help of this command.
    """
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.{' ' + details if details else ''}"
    )
    added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object on stdout")
    return added


def fleet_name(text: str) -> str:
    """Check and return the name of a fleet that was passed on the command line.

    The fleet's records are stored in a folder with this name.
    """
    from fleet.inventory.model import NAME  # imported late because most steps of a rollout do not need it

    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a fleet's name: letters, digits, '.', '_' and '-'")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Only a defect of this program ends in a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # A rollout runs a dozen steps, so a step imports only its own module, not the slow modules that publish releases.
    is_step = [each for each in arguments if not each.startswith("-")][:1] == ["wave"]
    options = parser(("fleet.cli.steps",) if is_step else MODULES).parse_args(arguments)
    try:
        result = options.run(options)
        fields = result.model_dump(by_alias=True) if isinstance(result, Output) else result
        code = int(fields.pop("exit_code", 0))
        if options.json:
            _print_json(options, fields)
        else:
            print(options.text(result))
        sys.stdout.flush()
        return code
    except AgentError as error:  # errors of the fleet and of the agent, for example when an archive is read
        return _fail(options, error.as_json(), str(error))
    except BrokenPipeError:  # `fleet release list | head -1`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_PIPE
    except OSError as error:
        failure = _from_os_error(error)
        return _fail(options, failure.as_json(), str(failure))
    except KeyboardInterrupt:
        print("interrupted; run the command again to continue where it stopped", file=sys.stderr)
        return errors.EXIT_INTERRUPTED


def _name(options: argparse.Namespace) -> str:
    return " ".join(filter(None, (options.command, getattr(options, "action", None))))


def _print_json(options: argparse.Namespace, fields: Mapping[str, Any]) -> None:
    print(json.dumps({"schema_version": OUTPUT_VERSION, "command": _name(options), **fields}, allow_nan=False))


def _fail(options: argparse.Namespace, error: Mapping[str, Any], text: str) -> int:
    if options.json:
        with contextlib.suppress(BrokenPipeError):
            _print_json(options, error)
    else:
        print(f"fleet {_name(options)}: {text}", file=sys.stderr)
    return int(error["exit_code"])


def _from_os_error(error: OSError) -> FleetError:
    where = str(error.filename or "the operating system")
    reason = error.strerror or str(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return SourceError(where, reason, "a response from the server", "check the network, then run the command again")
    remedy = "free space, or correct the owner and permissions, then run the command again"
    return StorageError(where, reason, "a file or folder that can be read and written", remedy)
