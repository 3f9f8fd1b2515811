"""`edge-agent`: reads the command line, calls lifecycle/operations.py, prints text or JSON, exits as errors.py says."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from edge_agent.core import errors
from edge_agent.core.errors import AgentError, StorageError
from edge_agent.core.privileges import become_owner
from edge_agent.core.release import EXPECTED, parse_release

CODES = "\n".join((errors.__doc__ or "").splitlines()[2:])
DEFAULT = "/etc/edge-agent/config.toml"
OUTPUT_VERSION = 1
EXIT_PIPE = 128 + 13  # as a shell says of a program that SIGPIPE ended
SCHEMA_FILE = Path(__file__).with_name("output.schema.json")


def parser() -> argparse.ArgumentParser:
    """Global options stand before the command."""
    root = Parser(
        prog="edge-agent",
        description="Installs releases on this device, tests them, switches to them, and goes back from bad ones.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--config", type=Path, default=Path(DEFAULT), metavar="FILE", help=f"default: {DEFAULT}")
    root.add_argument("--json", action="store_true", help="one JSON object on stdout, errors too (output.schema.json)")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, more: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.{' ' + more if more else ''}",
        )

    def release(to: argparse._ActionsContainer, **options: Any) -> None:
        to.add_argument("release", type=_release, metavar="RELEASE", help="NAME@VERSION, as digits@1.2.0", **options)

    release(
        command(
            "install",
            "fetch a release, verify it, unpack it into a slot",
            "Nothing is switched. A broken download goes on where it stopped. Installed and whole: nothing to do.",
        )
    )
    shadow = command(
        "shadow",
        "let an installed release see live inputs beside the current one, without answering",
        "Reports how often both name the same class, and how long each takes. Ends after either limit, or with ^C.",
    )
    release(shadow)
    shadow.add_argument("--samples", type=_positive, default=1000, metavar="N", help="inputs to compare (1000)")
    shadow.add_argument("--seconds", type=float, default=300.0, metavar="T", help="at most so long (300)")
    shadow.add_argument("--no-selftest", action="store_true", help="skip the self-test that comes first")
    activate = command(
        "activate",
        "self-test an installed release and switch to it, on trial",
        "The service swaps between two requests. It confirms the release or goes back by itself.",
    )
    release(activate)
    activate.add_argument("--no-selftest", action="store_true", help="skip the self-test; the trial still judges")
    deploy = command("deploy", "install a release and activate it", "Current already and whole: nothing to do.")
    release(deploy)
    deploy.add_argument("--no-selftest", action="store_true", help="skip the self-test; the trial still judges")
    confirm = command(
        "confirm",
        "end the trial: the current release stays",
        "Refused unless the service has loaded exactly this release and it is healthy.",
    )
    release(confirm, nargs="?")
    confirm.add_argument("--force", action="store_true", help="confirm unseen")
    rollback = command("rollback", "go back to the previous release, without network")
    rollback.add_argument("--to", type=_release, metavar="RELEASE", help="another installed release")
    rollback.add_argument("--reason", metavar="TEXT", help="marks the release that is left as bad until `forget`")
    command(
        "status",
        "what is current, on trial, installed, and what the service has loaded",
        "Exits 0 also where no service runs.",
    ).add_argument("--report", action="store_true", help="with what the service counted since the switch")
    command("report", "what the service counted since the switch")
    verify = command(
        "verify", "check every byte of every slot against its manifest", "Exits 3 where a slot is damaged."
    )
    verify.add_argument("--release", type=_release, metavar="RELEASE", help="only this one")
    serve = command("serve", "answer predictions, judge trials, report; until SIGTERM")
    serve.add_argument(
        "--no-systemd", action="store_true", help="under another supervisor: no sd_notify, no journald fields"
    )
    prune = command("prune", "remove slots that are neither current nor previous, but the newest")
    prune.add_argument("--keep", type=_count, metavar="N", help="so many beside the two; default: install.keep")
    forget = command(
        "forget",
        "let a release that failed here be tried again, or drop a time that was wrong",
        "With --trusted-time: the clock was ahead once, and metadata that is current is refused ever since.",
    ).add_mutually_exclusive_group(required=True)
    release(forget, nargs="?")
    forget.add_argument("--trusted-time", action="store_true", help="the time when metadata was last verified here")
    samples = command("samples", "samples captured for retraining").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    export = samples.add_parser("export", help="write them to a file", description="Write them to a file.")
    export.add_argument("file", type=Path, metavar="FILE", help="a new file")
    return root


def _release(text: str) -> str:
    """A release's name goes into paths: what is none is refused before anything looks for it."""
    if parse_release(text) is None:
        raise argparse.ArgumentTypeError(f"found {text[:200]!r}, expected {EXPECTED}")
    return text


def _positive(text: str) -> int:
    return _whole(text, 1)


def _count(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"found {text[:200]!r}, expected a whole number of {least} or more")
    return int(text)


class Parser(argparse.ArgumentParser):
    """With --json on the command line, one that is wrong is told in JSON too."""

    json = False

    def error(self, message: str) -> NoReturn:
        if Parser.json:
            told = errors.AgentError(self.prog, message, "", f"see: {self.prog} --help").as_json()
            told = {**told, "error": "UsageError", "exit_code": errors.EXIT_USAGE}
            command = self.prog.partition(" ")[2].partition(" ")[0]
            print(json.dumps({"schema_version": OUTPUT_VERSION, "command": command, **told}))
            self.exit(errors.EXIT_USAGE)
        super().error(message)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code. Only a defect of the agent itself ends in a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    Parser.json = "--json" in arguments
    options = parser().parse_args(arguments)
    code = _ended(options)
    if options.command == "serve":
        # A thread that a native library still computes in (a shadow, a model that hangs) would abort the interpreter's
        # own end, with another exit code.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _ended(options: argparse.Namespace) -> int:
    """The exit code of a command, when it has ended."""
    try:
        code = 0
        for result in _run(options):
            code = result.pop("exit_code", 0)
            _print(options, result)
        return code
    except AgentError as error:
        return _fail(options, error)
    except BrokenPipeError:  # `edge-agent status | head -1`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_PIPE
    except OSError as error:
        return _fail(options, _storage(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return errors.EXIT_INTERRUPTED


def _run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The results of a command; all but `shadow` have one."""
    from edge_agent.core import config as configuration

    config = configuration.load(options.config)
    if options.command != "samples":  # that one writes its file as whoever calls
        become_owner(config.layout.state)
        os.umask(0o027)  # as the unit has it: the group may look
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


def _operate(options: argparse.Namespace, config: Any) -> Iterator[dict[str, Any]]:
    from edge_agent.core.progress import Progress
    from edge_agent.lifecycle import operations, switching

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
        yield operations.report(config)
    elif options.command == "verify":
        result = operations.verify(config, options.release)
        damaged = not all(slot["whole"] for slot in result["slots"])
        yield {**result, "exit_code": errors.TrustError.exit_code if damaged else 0}
    elif options.command == "prune":
        yield operations.prune(config, options.keep)
    elif options.command == "forget":
        if options.trusted_time:
            yield operations.forget_time(config)
        else:
            yield operations.forget(config, options.release)
    else:
        lines = operations.shadow(
            config, options.release, options.samples, options.seconds, not options.no_selftest, progress.step
        )
        last = None
        for last in lines:
            progress.samples(last["samples"], options.samples)
        progress.end()
        yield last or {}


def _print(options: argparse.Namespace, result: dict[str, Any]) -> None:
    if options.json:
        print(json.dumps({"schema_version": OUTPUT_VERSION, "command": options.command, **result}, allow_nan=False))
        return
    from edge_agent.cli import text

    print(text.render(options.command, result))


def _fail(options: argparse.Namespace, error: AgentError) -> int:
    if options.json:
        print(json.dumps({"schema_version": OUTPUT_VERSION, "command": options.command, **error.as_json()}))
    else:
        print(f"edge-agent {options.command}: {error}", file=sys.stderr)
    return error.exit_code


def _storage(error: OSError) -> StorageError:
    remedy = "free space on it, or see `dmesg` for a failing disk"
    if isinstance(error, PermissionError):
        remedy = "call as root, or as the user who owns the state directory: sudo edge-agent ..."
    where = str(error.filename or "the state directory")
    return StorageError(where, error.strerror or str(error), "", remedy)
