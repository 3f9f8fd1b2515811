"""Read objects from an S3-compatible store or an HTTP server, or local files, with fsspec."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import aiohttp
import fsspec
from fsspec.callbacks import Callback
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from stages.collect.sources import decode
from stages.collect.sources.base import Context, FetchResult, LeftOut, Origin
from stages.collect.sources.selection import select_files
from stages.collect.sources.threads import run_detached
from stages.collect.sources.url_secrets import redact
from stages.params.collect import Cloud

Result = TypeVar("Result")


async def fetch(source: Cloud, context: Context) -> FetchResult:
    """Copy the selected objects to this machine and decode them. Raises SourceError."""
    # fsspec runs its own event loop, so it is called in a separate thread
    folder, names, origins, left_out = await run_detached(lambda: copy_objects(source, context))
    return FetchResult(origins, decode.read_tables(folder, names, source.files, context), left_out)


def storage_options(source: Cloud, context: Context) -> dict[str, Any]:
    """Return the options with which fsspec opens the store.

    The time limit is the same for every kind of store, but the option that sets it has a different name for each.
    """
    silence = context.retry.timeout_s
    if source.url.startswith(("http://", "https://")):
        limit = aiohttp.ClientTimeout(total=None, connect=silence, sock_connect=silence, sock_read=silence)
        return {"client_kwargs": {"timeout": limit, "trust_env": True}, "skip_instance_cache": True}
    if source.url.startswith("s3://"):
        return {
            "client_kwargs": {"endpoint_url": source.endpoint_url} if source.endpoint_url else {},
            "config_kwargs": {"connect_timeout": silence, "read_timeout": silence, "retries": {"max_attempts": 0}},
            "skip_instance_cache": True,
        }
    return {}


def copy_objects(source: Cloud, context: Context) -> tuple[Path, list[str], list[Origin], list[LeftOut]]:
    """Copy the selected objects to a local folder.

    Returns:
        The folder, the names of the files in it, the objects' origins, and a record of all other objects.

    Raises:
        SourceError: The store cannot be read, no object is selected, or two objects have the same path.
    """
    folder = context.scratch / "objects"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        system, root = url_to_fs(source.url, **storage_options(source, context))
    except (ImportError, ValueError, OSError) as error:
        raise context.error(f"{redact(source.url)}: {error}", "a URL that fsspec can read", "correct `url:`") from None
    if hasattr(system, "retries"):
        system.retries = 1  # without this, s3fs also repeats failed requests, with fixed pauses
    objects = _with_retries(lambda: list_objects(system, root, source.url), source.url, context)
    if not objects:
        raise context.error(
            f"{redact(source.url)}: it does not exist", "an existing object or folder", "correct `url:`"
        )
    names, left_out = select_files(objects.values(), source.files, context)
    selected = set(names)
    chosen = {path: name for path, name in sorted(objects.items()) if name in selected}
    for path, name in chosen.items():
        if ".." in name.split("/"):
            raise context.error(
                f"the name of object {name!r} leads out of its folder", "a name without `..`", "rename the object"
            )
        if isinstance(system, LocalFileSystem) and not Path(path).is_file():
            kind = "a pipe, a socket or a device"
            if Path(path).is_symlink():
                kind = "a link to a folder" if Path(path).is_dir() else "a broken link"
            raise context.error(f"{name}: it is {kind}", "a regular file", "remove it, or exclude it (`select:`)")
    single = list(objects) == [root]
    origins = [
        _copy_one(system, path, folder / name, source.url if single else f"{source.url.rstrip('/')}/{name}", context)
        for path, name in chosen.items()
    ]
    return folder, names, origins, left_out


def list_objects(system: Any, root: str, url: str) -> dict[str, str]:
    """List the objects at or below `root`.

    Args:
        system: The file system of fsspec.
        root: Path of the object or folder, in fsspec's notation.
        url: URL of the same object or folder.

    Returns:
        A mapping from the fsspec path of each object to the object's path relative to `root`. If `root` itself is
        an object, it is mapped to its file name.
    """
    if url.startswith(("http://", "https://")):
        return {root: unquote(urlsplit(url).path).rpartition("/")[2] or "index"}
    if system.isfile(root):
        return {root: root.rpartition("/")[2]}
    listing = list_folder(root) if isinstance(system, LocalFileSystem) else system.find(root)
    paths = [path for path in listing if not path.endswith("/")]
    return {path: path[len(root) :].strip("/") for path in paths}


def list_folder(root: str) -> list[str]:
    """Return the paths of all files below a local folder, and of all links to folders; an empty list if it is missing.

    NOTE: fsspec leaves out a folder that cannot be listed. Here, it is an OSError.
    """

    def fail(error: OSError) -> None:
        raise error

    if not Path(root).exists():
        return []
    paths: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=fail):
        paths += [Path(folder) / name for name in files]
        paths += [link for name in folders if (link := Path(folder) / name).is_symlink()]
    return [str(path) for path in paths]


class _CopyProgress(Callback):  # type: ignore[misc]  # fsspec has no types
    """An fsspec callback that reports the progress of a copy, and stops the copy when the stage has ended."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def set_size(self, size: int | None) -> None:
        super().set_size(size)
        self.context.progress.start(self.context.name, size)

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        self.context.progress.advance(self.context.name, inc)
        if self.context.stop.is_set():
            raise self.context.error("interrupted")


def _copy_one(system: Any, path: str, target: Path, url: str, context: Context) -> Origin:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # for example on a file system that does not distinguish upper and lower case
        problem = f"{redact(url)}: another object has the same path on this machine"
        raise context.error(problem, "a different path for each object", "rename one of the objects")
    _with_retries(lambda: system.get_file(path, str(target), callback=_CopyProgress(context)), url, context)
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Origin(redact(url), digest, target.stat().st_size)


def _with_retries(call: Callable[[], Result], url: str, context: Context) -> Result:
    """Call a function until it succeeds, and return its result.

    Raises SourceError if the last allowed attempt fails, or if an attempt fails with a permanent error.
    """
    from botocore.exceptions import BotoCoreError, NoCredentialsError, ParamValidationError

    reason = ""
    expected, remedy = (
        "an object or a folder that can be read",
        "correct the URL or the permissions (AWS_ACCESS_KEY_ID ... for s3://)",
    )
    for number in range(context.retry.attempts):
        if number and context.stop.wait(context.retry.backoff_s * 2 ** (number - 1)):
            raise context.error("interrupted")
        try:
            return call()
        except (FileNotFoundError, PermissionError, NoCredentialsError, ParamValidationError) as error:
            raise context.error(f"{redact(url)}: {error}", expected, remedy) from None
        except aiohttp.TooManyRedirects as error:
            reason = f"redirected {len(error.history)} times"
            raise context.error(f"{redact(url)}: {reason}", expected, "correct the URL or the server") from None
        except aiohttp.ClientResponseError as error:
            if error.status < 500 and error.status not in (408, 425, 429):
                raise context.error(f"{redact(url)}: HTTP {error.status} {error.message}", expected, remedy) from None
            reason = f"HTTP {error.status} {error.message}"
        except (TimeoutError, fsspec.exceptions.FSTimeoutError):
            reason = f"no response for {context.retry.timeout_s:g} s"
        except (OSError, aiohttp.ClientError, BotoCoreError, ValueError) as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # an error of a local file, for example on a full disk
            reason = str(error) or type(error).__name__
    raise context.error(
        f"{redact(url)}: {reason}; {context.retry.attempts} attempt(s)",
        "a response from the store",
        "check that the store is running and reachable, then run again (collect.retry sets the time limits)",
    )
