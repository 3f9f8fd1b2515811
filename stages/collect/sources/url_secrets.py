"""Remove secrets from the URLs of sources, so that the URLs are safe to show in messages, logs and provenance."""

from __future__ import annotations

import re

URL_USER = re.compile(r"(?<=://)[^/@\s]*@")
URL_SECRET = re.compile(
    r"(?i)([?&][^=&\s]*(?:auth|code|credential|key|passw|secret|sig|token)[^=&\s]*=)[^&\s'\")]*?(?=[:;,.]?(?:[&\s'\")]|$))"
)


def redact(text: str) -> str:
    """Return the text, with user names, passwords and secret query parameters removed from its URLs."""
    return URL_SECRET.sub(r"\1***", URL_USER.sub("", text))
