"""Objects in an S3-compatible store, on an HTTPS server, or files on this machine, through fsspec."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path
from typing import Any

from stages.params.collect import Cloud
from stages.sources import decode
from stages.sources.raw import Context, Origin, Raw, public


async def fetch(source: Cloud, context: Context) -> Raw:
    """Raises SourceError."""
    # fsspec keeps an event loop of its own, so its calls run in a thread; it has no common time limit either.
    limit = context.retry.timeout_s * context.retry.attempts
    try:
        folder, origins = await asyncio.wait_for(asyncio.to_thread(copy, source, context), limit)
    except TimeoutError:
        raise context.error(
            f"{public(source.url)}: not there after {limit:g} s", "an answer", "see collect.retry, or the store"
        ) from None
    return Raw(origins, decode.tables(folder, source.files, context))


def copy(source: Cloud, context: Context) -> tuple[Path, list[Origin]]:
    """The objects that the patterns select, copied into the scratch folder. Raises SourceError."""
    import fsspec
    from fsspec.core import url_to_fs

    options: dict[str, Any] = {}
    if source.url.startswith("s3://"):
        options = {
            "client_kwargs": {"endpoint_url": source.endpoint_url} if source.endpoint_url else {},
            "config_kwargs": {
                "connect_timeout": context.retry.timeout_s,
                "read_timeout": context.retry.timeout_s,
                "retries": {"max_attempts": context.retry.attempts},
            },
        }
    folder = context.scratch / "objects"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        system, root = url_to_fs(source.url, **options)
        paths = [root] if system.isfile(root) else system.find(root)
        if not paths:
            raise context.error(f"{public(source.url)}: there is nothing", "an object or a folder", "mend `url:`")
        origins = []
        for path in sorted(paths):
            name = path[len(root) :].strip("/") or path.rsplit("/", 1)[-1]
            if decode.selected(name, source.files):
                origins.append(_copy_one(system, path, folder / name, name, source, context))
    except (OSError, fsspec.exceptions.FSTimeoutError, ImportError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise context.error(f"{public(source.url)}: {why}", "an object or a folder", "mend the URL or rights") from None
    return folder, origins


def _copy_one(system: Any, path: str, target: Path, name: str, source: Cloud, context: Context) -> Origin:
    if not target.resolve().is_relative_to(context.scratch.resolve()):
        raise context.error(f"object {name!r} leads out of its folder", "a plain name", "rename it")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with system.open(path, "rb") as stream, target.open("wb") as copied:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            size += copied.write(chunk)
    base = public(source.url).rstrip("/")
    return Origin(base if base.endswith(name) else f"{base}/{name}", digest.hexdigest(), size)
