"""`fleet publish`: publish a bundle as a release. `fleet sign`: create only the builder's signature, for CI."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.core.progress import size

from fleet.cli.main import Commands, Output, command
from fleet.cli.release_options import add_options, workspace_of
from fleet.releases import publishing
from fleet.releases.catalog import Provenance
from fleet.releases.git_tags import TagRegistry
from fleet.releases.publishing import PublishRequest

PARTS = ("major", "minor", "patch")


class ReleasePublished(Output):
    """The fields of the result of `fleet publish` that describe the published release.

    `state` is `published` or `unchanged`.
    """

    release: str
    state: str
    repository: str
    path: str
    length: int
    sha256: str
    tag: str | None


class Publication(Provenance, ReleasePublished):
    """The result of `fleet publish`."""

    warnings: list[str]


class BundleSigned(Output):
    """The result of `fleet sign`: the signature file, the name of the bundle, and the builder."""

    signature: str
    name: str
    builder: str


def add_commands(commands: Commands) -> None:
    """Add `publish` and `sign` to the command line."""
    parser = command(
        commands,
        "publish",
        "publish a bundle as a release: verify it, sign it, list it in the repository, tag it in git",
        "Publishing the same bytes again changes nothing. A version that is in use is refused for a different bundle. "
        "If the command was killed, run it again. If there is no repository, the command creates one with development "
        "keys.",
    )
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="bundle that the pipeline built, models/bundle/NAME.tar.zst"
    )
    version = parser.add_mutually_exclusive_group()
    version.add_argument("--version", metavar="V", help="a semantic version, such as 1.2.0")
    version.add_argument(
        "--bump", choices=PARTS, default="patch", help="part to increment in the highest version that is in use (patch)"
    )
    parser.add_argument("--signature", type=Path, metavar="FILE", help="the builder's signature from `fleet sign`")
    parser.add_argument(
        "--commit", metavar="SHA", help="commit that the bundle was built from, if it was built elsewhere"
    )
    parser.add_argument(
        "--git", type=Path, default=Path(), metavar="DIR", help="git repository that the bundle was built from (.)"
    )
    parser.add_argument("--no-tag", action="store_true", help="do not use git: record no commit, and create no tag")
    add_options(parser)
    parser.set_defaults(run=publish_command, text=_publish_text)
    parser = command(
        commands,
        "sign",
        "sign a bundle as its builder, without publishing it",
        "The signing policy selects a key, or the identity of a CI system (Sigstore, which needs the network).",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("signature", type=Path, metavar="FILE", help="file to write the signature to")
    add_options(parser)
    parser.set_defaults(run=sign_command, text=lambda result: f"{result.signature}: signed by {result.builder}")


def publish_command(options: argparse.Namespace) -> Publication:
    """Publish the bundle that the options of `fleet publish` name."""
    workspace = workspace_of(options)
    registry = None if options.no_tag else TagRegistry(options.git)
    request = PublishRequest(options.bundle, options.version, options.bump, options.signature, options.commit, registry)
    publication = publishing.publish(workspace, request)
    target = publication.target
    return Publication(
        release=publication.release,
        state="published" if publication.is_new else "unchanged",
        repository=workspace.location,
        path=target.path,
        length=target.length,
        sha256=target.hashes["sha256"],
        tag=publication.tag,
        **publication.provenance.model_dump(),
        warnings=list(publication.warnings),
    )


def sign_command(options: argparse.Namespace) -> BundleSigned:
    """Sign the bundle that the options of `fleet sign` name."""
    name, builder = publishing.sign_bundle(workspace_of(options), options.bundle, options.signature)
    return BundleSigned(signature=str(options.signature), name=name, builder=builder)


def _publish_text(result: Publication) -> str:
    state = "published" if result.state == "published" else "already published with these bytes: nothing to do"
    lines = [f"{result.release}  {state}  ({size(result.length)}, sha256 {result.sha256})"]
    if result.tag:
        lines.append(f"tag {result.tag} (push it: git push origin {result.tag})")
    return "\n".join([*lines, *(f"warning: {each}" for each in result.warnings)])
