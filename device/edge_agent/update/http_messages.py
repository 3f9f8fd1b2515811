"""Read the header `Retry-After`, and describe errors of urllib3."""

from __future__ import annotations

import contextlib
import re
import time
from email.utils import parsedate_to_datetime

import urllib3


def describe(error: BaseException | None) -> str:
    """Return the message of a urllib3 error without the names and addresses of Python objects."""
    first = error.args[0] if isinstance(error, urllib3.exceptions.ProtocolError) and error.args else error
    return re.sub(r"^\w+\([^()]*\): |^<[^>]*>:? ?", "", str(first)) or type(error).__name__


def retry_after_s(response: urllib3.BaseHTTPResponse) -> float:
    """Return the pause in seconds that the header `Retry-After` requests, or 0 (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
