"""`fleet publish`: a bundle becomes a release. `fleet sign`: the builder's signature alone, for CI to make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_agent.core.progress import size

from fleet.cli.main import Commands, command
from fleet.cli.release_options import add_options, workplace
from fleet.releases import catalog, publishing
from fleet.releases.git_tags import TagRegistry
from fleet.releases.publishing import PublishRequest

PARTS = ("major", "minor", "patch")


def add_commands(commands: Commands) -> None:
    to = command(
        commands,
        "publish",
        "publish a bundle as a release: verify, sign, list, register",
        "The same bytes again: nothing to do. Other bytes under a version that is used: refused. Killed: run it again. "
        "Without a repository, one is made with development keys.",
    )
    to.add_argument("bundle", type=Path, metavar="BUNDLE", help="what the pipeline packed: models/bundle/NAME.tar.zst")
    which = to.add_mutually_exclusive_group()
    which.add_argument("--version", metavar="V", help="a semantic version, such as 1.2.0")
    which.add_argument("--bump", choices=PARTS, default="patch", help="after the highest version that is used (patch)")
    to.add_argument("--signature", type=Path, metavar="FILE", help="the builder's, made before by `fleet sign`")
    to.add_argument("--commit", metavar="SHA", help="what the bundle was built from, where it was built elsewhere")
    to.add_argument("--git", type=Path, default=Path(), metavar="DIR", help="the git repository that built it (.)")
    to.add_argument("--no-tag", action="store_true", help="no git: no commit is named, no version registered")
    add_options(to)
    to.set_defaults(run=publish_command, text=_text)
    to = command(
        commands,
        "sign",
        "sign a bundle as its builder, without publishing it",
        "The policy says with which key, or with which identity of a CI system (Sigstore; needs the network).",
    )
    to.add_argument("bundle", type=Path, metavar="BUNDLE")
    to.add_argument("signature", type=Path, metavar="FILE", help="a new file")
    add_options(to)
    to.set_defaults(run=sign_command, text=lambda result: f"{result['signature']}: signed by {result['builder']}")


def publish_command(options: argparse.Namespace) -> dict[str, Any]:
    work = workplace(options)
    registry = None if options.no_tag else TagRegistry(options.git)
    request = PublishRequest(options.bundle, options.version, options.bump, options.signature, options.commit, registry)
    done = publishing.publish(work, request)
    custom = done.target.unrecognized_fields[catalog.CUSTOM]
    return {
        "release": done.release,
        "state": "published" if done.is_new else "unchanged",
        "repository": work.where,
        "path": done.target.path,
        "length": done.target.length,
        "sha256": done.target.hashes["sha256"],
        "tag": done.tag,
        **{name: custom[name] for name in catalog.CUSTOM_FIELDS},
        "warnings": list(done.warnings),
    }


def sign_command(options: argparse.Namespace) -> dict[str, Any]:
    name, builder = publishing.sign_bundle(workplace(options), options.bundle, options.signature)
    return {"signature": str(options.signature), "name": name, "builder": builder}


def _text(result: dict[str, Any]) -> str:
    said = "published" if result["state"] == "published" else "published before, with these bytes: nothing to do"
    lines = [f"{result['release']}  {said}  ({size(result['length'])}, sha256 {result['sha256']})"]
    if result["tag"]:
        lines.append(f"tag {result['tag']} (push it: git push origin {result['tag']})")
    return "\n".join([*lines, *(f"warning: {each}" for each in result["warnings"])])
