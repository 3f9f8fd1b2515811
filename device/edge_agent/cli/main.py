"""The program `edge-agent`: parse the command line, run one command, print its result, and return its exit code.

Most commands are functions of `edge_agent.lifecycle`. core/errors.py lists the exit codes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge_agent.core import errors
from edge_agent.core.errors import AgentError, StorageError
from edge_agent.core.privileges import become_owner
from edge_agent.core.release import EXPECTED, parse_release

if TYPE_CHECKING:
    from edge_agent.core.config import Config

CODES = "\n".join((errors.__doc__ or "").splitlines()[2:])
DEFAULT = "/etc/edge-agent/config.toml"
OUTPUT_VERSION = 1
EXIT_PIPE = 128 + 13  # the exit code that a shell reports for a program that SIGPIPE has ended
SCHEMA_FILE = Path(__file__).with_name("output.schema.json")


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line. Global options come before the command."""
    root = Parser(
        prog="edge-agent",
        description="Installs releases on this device, tests them, switches to them, and rolls bad ones back.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--config", type=Path, default=Path(DEFAULT), metavar="FILE", help=f"default: {DEFAULT}")
    root.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout, also for errors (output.schema.json)"
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.{' ' + more if more else ''}",
        )

    def release(to: argparse._ActionsContainer, **options: Any) -> None:
        to.add_argument(
            "release", type=_release, metavar="RELEASE", help="NAME@VERSION, such as digits@1.2.0", **options
        )

    release(
        command(
            "install",
            "download a release, verify it, and unpack it into a slot",
            "Does not switch to it. Resumes an interrupted download. Does not change an installed, undamaged release.",
        )
    )
    shadow = command(
        "shadow",
        "run an installed release on the live inputs of the current release, without using its predictions",
        "Reports how often both releases predict the same class, and the latency of each. Ends at a limit or with ^C.",
    )
    release(shadow)
    shadow.add_argument(
        "--samples", type=_positive, default=1000, metavar="N", help="number of inputs to compare (default: 1000)"
    )
    shadow.add_argument(
        "--seconds", type=float, default=300.0, metavar="T", help="maximum duration in seconds (default: 300)"
    )
    shadow.add_argument("--no-selftest", action="store_true", help="skip the self-test before the comparison")
    activate = command(
        "activate",
        "self-test an installed release, switch to it, and put it on trial",
        "The service swaps models between two requests, then confirms the release or rolls back automatically.",
    )
    release(activate)
    activate.add_argument("--no-selftest", action="store_true", help="skip the self-test; the trial still applies")
    deploy = command(
        "deploy", "install a release and switch to it", "A release that is current and undamaged is not changed."
    )
    release(deploy)
    deploy.add_argument("--no-selftest", action="store_true", help="skip the self-test; the trial still applies")
    confirm = command(
        "confirm",
        "end the trial and keep the current release",
        "Refused unless the service has loaded exactly this release and the release is healthy.",
    )
    release(confirm, nargs="?")
    confirm.add_argument("--force", action="store_true", help="confirm without a health check")
    rollback = command("rollback", "roll back to the previous release, without network access")
    rollback.add_argument("--to", type=_release, metavar="RELEASE", help="roll back to this installed release")
    rollback.add_argument("--reason", metavar="TEXT", help="mark the replaced release as bad, for this reason")
    command(
        "status",
        "show the current release, the trial, installed releases, and the model that the service has loaded",
        "Exits 0 even if no service is running.",
    ).add_argument(
        "--report", action="store_true", help="include the service's statistics since the agent switched to the release"
    )
    command("report", "show the service's statistics since the agent switched to the release")
    verify = command("verify", "check every byte of every slot against its manifest", "Exits 3 if a slot is damaged.")
    verify.add_argument("--release", type=_release, metavar="RELEASE", help="check this release only")
    serve = command("serve", "run the service until SIGTERM: answer requests, judge trials, report statistics")
    serve.add_argument(
        "--no-systemd", action="store_true", help="run under another supervisor, without sd_notify and journald fields"
    )
    prune = command("prune", "remove unused slots except the newest, and interrupted downloads")
    prune.add_argument(
        "--keep", type=_count, metavar="N", help="number of unused slots to keep (default: install.keep)"
    )
    forget = command(
        "forget",
        "allow a release that failed on this device to be tried again, or discard a wrong trusted time",
        "Use --trusted-time if the clock was ahead in the past, and current metadata is now refused as expired.",
    ).add_mutually_exclusive_group(required=True)
    release(forget, nargs="?")
    forget.add_argument(
        "--trusted-time", action="store_true", help="discard the time at which metadata was last verified"
    )
    samples = command("samples", "manage the samples captured for retraining").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    export = samples.add_parser(
        "export", help="write the samples to a file", description="Write the samples to a file."
    )
    export.add_argument("file", type=Path, metavar="FILE", help="file to write")
    return root


def _release(text: str) -> str:
    """Return `text` if it is a valid name of a release.

    Other text is refused before any command runs, because the name of a release becomes a part of file paths.
    """
    if parse_release(text) is None:
        raise argparse.ArgumentTypeError(f"found {text[:200]!r}, expected {EXPECTED}")
    return text


def _positive(text: str) -> int:
    return _whole_number(text, 1)


def _count(text: str) -> int:
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text[:200]!r}, expected a whole number of {least} or more")
    return int(text)


class Parser(argparse.ArgumentParser):
    """A parser that reports an invalid command line as JSON if the command line contains --json."""

    json = False

    def error(self, message: str) -> NoReturn:
        if Parser.json:
            usage = errors.AgentError(self.prog, message, "", f"see: {self.prog} --help").as_json()
            usage = {**usage, "error": "UsageError", "exit_code": errors.EXIT_USAGE}
            command = self.prog.partition(" ")[2].partition(" ")[0]
            print(json.dumps({"schema_version": OUTPUT_VERSION, "command": command, **usage}))
            self.exit(errors.EXIT_USAGE)
        super().error(message)


def main(arguments: list[str] | None = None) -> int:
    """Run one command of `edge-agent`, and return the exit code. Only a defect of the agent causes a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    Parser.json = "--json" in arguments
    options = parser().parse_args(arguments)
    code = _exit_code(options)
    if options.command == "serve":
        # A thread can still run in a native library (a shadow comparison, or a model that hangs). This thread would
        # abort the interpreter during the normal shutdown, and change the exit code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _exit_code(options: argparse.Namespace) -> int:
    """Run the command that `options` names, print its results, and return the exit code."""
    try:
        code = 0
        for result in _run(options):
            if options.command == "verify" and not result.undamaged:
                code = errors.TrustError.exit_code
            _print(options, result)
        return code
    except AgentError as error:
        return _fail(options, error)
    except BrokenPipeError:  # the reader of the pipe has closed it, as in `edge-agent status | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_PIPE
    except OSError as error:
        return _fail(options, _storage_error(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return errors.EXIT_INTERRUPTED


def _run(options: argparse.Namespace) -> Iterator[Any]:
    """Run the command that `options` names, and yield its results (see `lifecycle.results`).

    The command `serve` has no results.
    """
    from edge_agent.core import config as configuration

    config = configuration.load(options.config)
    if options.command != "samples":  # the command `samples` writes its file as the calling user
        become_owner(config.layout.state)
        os.umask(0o027)  # the group may read new files, as with the systemd unit
    if options.command == "serve":
        from edge_agent.service.main import serve

        serve(config, systemd=not options.no_systemd)
        return
    if options.command == "status":
        from edge_agent.lifecycle.status import status

        yield status(config, options.report)
        return
    if options.command == "samples":
        from edge_agent.monitoring import samples

        yield samples.export(config, options.file)
        return
    yield from _operate(options, config)


def _operate(options: argparse.Namespace, config: Config) -> Iterator[Any]:
    from edge_agent.core.progress import Progress
    from edge_agent.lifecycle import inspection, operations, switching

    progress = Progress(sys.stderr)
    if options.command == "install":
        yield operations.install(config, options.release, progress.bytes, progress.step)
    elif options.command == "activate":
        yield switching.activate(config, options.release, not options.no_selftest, progress.step)
    elif options.command == "deploy":
        yield operations.deploy(config, options.release, not options.no_selftest, progress.bytes, progress.step)
    elif options.command == "confirm":
        yield operations.confirm(config, options.release, options.force)
    elif options.command == "rollback":
        yield switching.rollback(config, options.to, options.reason, progress.step)
    elif options.command == "report":
        yield inspection.report(config)
    elif options.command == "verify":
        yield inspection.verify(config, options.release)
    elif options.command == "prune":
        yield operations.prune(config, options.keep)
    elif options.command == "forget":
        yield operations.forget_time(config) if options.trusted_time else operations.forget(config, options.release)
    else:
        summaries = inspection.shadow(
            config, options.release, options.samples, options.seconds, not options.no_selftest, progress.step
        )
        last = None
        for last in summaries:
            progress.samples(last.samples, options.samples)
        progress.end()
        yield last or {}


def _print(options: argparse.Namespace, result: Any) -> None:
    from edge_agent.core.json_values import to_json

    if options.json:
        value = {"schema_version": OUTPUT_VERSION, "command": options.command, **to_json(result)}
        print(json.dumps(value, allow_nan=False))
        return
    from edge_agent.cli import text

    print(text.render(result))


def _fail(options: argparse.Namespace, error: AgentError) -> int:
    if options.json:
        print(json.dumps({"schema_version": OUTPUT_VERSION, "command": options.command, **error.as_json()}))
    else:
        print(f"edge-agent {options.command}: {error}", file=sys.stderr)
    return error.exit_code


def _storage_error(error: OSError) -> StorageError:
    remedy = "free disk space; if the disk is not full, run `dmesg` to see whether it fails"
    if isinstance(error, PermissionError):
        remedy = "run the command as root, or as the user who owns the state directory: sudo edge-agent ..."
    where = str(error.filename or "the state directory")
    return StorageError(where, error.strerror or str(error), "", remedy)
