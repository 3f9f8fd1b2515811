"""Signs and verifies one folder with OpenSSF Model Signing. Runs in an environment of its own (signing.py says why).

Reads one JSON object on stdin: action (`sign` or `verify`), folder, signature (a path outside it), ignore (paths
below the folder), and for keys `key` (a PEM file) and `passphrase`, for Sigstore `identity` and `issuer`.
Exit code 0, or 3 and the reason on stderr.
"""

import json
import sys
from pathlib import Path
from typing import Any

from model_signing import hashing, signing, verifying

REFUSED = 3


def main() -> int:
    asked = json.load(sys.stdin)
    folder, signature = Path(asked["folder"]), Path(asked["signature"])
    # Git's own files are no exception: a bundle has none, and what is ignored is not signed.
    config = hashing.Config().set_ignored_paths(
        paths=[folder / path for path in asked["ignore"]], ignore_git_paths=False
    )
    try:
        if asked["action"] == "sign":
            _signer(asked).set_hashing_config(config).sign(folder, signature)
        else:
            verifier = _verifier(asked).set_hashing_config(config).set_ignore_unsigned_files(False)
            verifier.verify(folder, signature)
    except Exception as error:  # whatever the library raises, a signature that is not verified is refused
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return REFUSED
    return 0


def _signer(asked: dict[str, Any]) -> signing.Config:
    if "key" in asked:
        passphrase = asked["passphrase"]
        secret = passphrase.encode() if passphrase else None
        return signing.Config().use_elliptic_key_signer(private_key=asked["key"], password=secret)
    return signing.Config().use_sigstore_signer(use_ambient_credentials=True)


def _verifier(asked: dict[str, Any]) -> verifying.Config:
    if "key" in asked:
        return verifying.Config().use_elliptic_key_verifier(public_key=asked["key"])
    return verifying.Config().use_sigstore_verifier(identity=asked["identity"], oidc_issuer=asked["issuer"])


if __name__ == "__main__":
    sys.exit(main())
