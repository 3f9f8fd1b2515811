"""Replace the keys of a repository's roles, so that devices follow by themselves. Crash-safe: each step is one file."""

from __future__ import annotations

from tuf.api.metadata import Root

from fleet.errors import KeysError
from fleet.releases.repository import ROLES, Repository


def rotate(repository: Repository, role: str, keyid: str | None = None) -> tuple[str, str]:
    """Replace one key of a role.

    Root: one new version, signed by the thresholds of the old and of the new keys (specification, 6.1). Another role:
    a root that knows both keys, the role signed anew, a root that knows only the new one. Killed in between, it goes
    on from there when it is called again.

    Args:
        repository: opened to be changed.
        role: whose key.
        keyid: how the key's id begins; None: the first one.

    Returns the old and the new key's ids. Raises KeysError.
    """
    old = _chosen(repository, role, keyid)
    return _rotate_root(repository, old) if role == "root" else _rotate_other(repository, role)


def renew_root(repository: Repository) -> None:
    """The same root again, with a new expiry."""
    repository.write_root(_copy_of_root(repository))


def _chosen(repository: Repository, role: str, keyid: str | None) -> str:
    keyids = repository.root.roles[role].keyids
    if keyid is None:
        return str(keyids[0])
    begins = [each for each in keyids if each.startswith(keyid)]
    if len(begins) != 1 or not keyid:
        found = f"{len(begins) or 'no'} key{'s begin' if len(begins) > 1 else ''} {keyid}"
        raise KeysError(f"role {role}", found, f"one of {', '.join(keyids)}", "fleet keys status")
    return str(begins[0])


def _rotate_root(repository: Repository, old: str) -> tuple[str, str]:
    root = _copy_of_root(repository)
    signers = repository.signers("root")
    new = repository.keys.make("root")
    root.revoke_key(old, "root")
    root.add_key(new, "root")
    repository.write_root(root, [*signers, repository.keys.signer("root", new)])
    return old, new.keyid


def _rotate_other(repository: Repository, role: str) -> tuple[str, str]:
    keyids = repository.root.roles[role].keyids
    old = keyids[0]
    repository.signers("root")
    for each in ROLES[ROLES.index(role) + 1 :]:
        repository.signers(each)
    if len(keyids) == 1:
        both = _copy_of_root(repository)
        both.add_key(repository.keys.make(role), role)
        repository.write_root(both)
    new = repository.root.roles[role].keyids[-1]
    repository.write(*ROLES[ROLES.index(role) :])
    after = _copy_of_root(repository)
    after.revoke_key(old, role)
    repository.write_root(after)
    return old, new


def _copy_of_root(repository: Repository) -> Root:
    return Root.from_dict(repository.root.to_dict())
