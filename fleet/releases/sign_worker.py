"""Sign or verify one folder with OpenSSF Model Signing. This program runs in a separate environment (see signing.py).

It reads one JSON object from stdin with the fields action (`sign` or `verify`), folder, signature (a path outside the
folder) and ignore (paths below the folder that are not signed). Further fields are `key` (a PEM file) and `passphrase`
for a key, or `identity` and `issuer` for Sigstore. After success, the exit code is 0. After an error, the exit code is
3, and stderr contains the reason.
"""

import json
import sys
from pathlib import Path
from typing import TypedDict

from model_signing import hashing, signing, verifying

REFUSED = 3


class Request(TypedDict, total=False):
    """The request that this program reads from stdin as a JSON object."""

    action: str
    folder: str
    signature: str
    ignore: list[str]
    key: str
    passphrase: str | None
    identity: str
    issuer: str


def main() -> int:
    request: Request = json.load(sys.stdin)
    folder, signature = Path(request["folder"]), Path(request["signature"])
    # Files of git, such as .gitignore, are signed too. A bundle normally has none, but ignored files would be unsigned.
    config = hashing.Config().set_ignored_paths(
        paths=[folder / path for path in request["ignore"]], ignore_git_paths=False
    )
    try:
        if request["action"] == "sign":
            _signer(request).set_hashing_config(config).sign(folder, signature)
        else:
            verifier = _verifier(request).set_hashing_config(config).set_ignore_unsigned_files(False)
            verifier.verify(folder, signature)
    except Exception as error:  # any exception of the library means that the signature is not verified
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return REFUSED
    return 0


def _signer(request: Request) -> signing.Config:
    if "key" in request:
        passphrase = request["passphrase"]
        secret = passphrase.encode() if passphrase else None
        return signing.Config().use_elliptic_key_signer(private_key=request["key"], password=secret)
    return signing.Config().use_sigstore_signer(use_ambient_credentials=True)


def _verifier(request: Request) -> verifying.Config:
    if "key" in request:
        return verifying.Config().use_elliptic_key_verifier(public_key=request["key"])
    return verifying.Config().use_sigstore_verifier(identity=request["identity"], oidc_issuer=request["issuer"])


if __name__ == "__main__":
    sys.exit(main())
