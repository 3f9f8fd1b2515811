"""Replace the keys of the roles of a repository of releases.

Devices accept the new keys automatically, because the signed root metadata lists them. If the process is killed, the
repository stays valid, because it is valid after each file that is written.
"""

from __future__ import annotations

from tuf.api.metadata import Root

from fleet.errors import KeysError
from fleet.releases.repository import ROLES, Repository


def rotate(repository: Repository, role: str, keyid: str | None = None) -> tuple[str, str]:
    """Replace one key of a role with a new key.

    For the role root, this function writes one new version of the root metadata, signed with as many old keys and as
    many new keys as the threshold requires (TUF specification 1.0, section 6.1). For any other role, it writes root
    metadata that lists the old and the new key, then the role's metadata signed with both keys, then root metadata that
    lists only the new key. If the process is killed between these steps, the next call continues with the next step.

    Args:
        repository: The repository, opened for writing.
        role: The role whose key is replaced.
        keyid: The first characters of the id of the key to replace; None selects the role's first key.

    Returns:
        The id of the old key, and the id of the new key.

    Raises:
        KeysError: `keyid` matches no key or several keys, or a private key is missing.
    """
    old = _select_key(repository, role, keyid)
    return _rotate_root(repository, old) if role == "root" else _rotate_other(repository, role)


def renew_root(repository: Repository) -> None:
    """Write a new version of the root metadata with the same keys and a later expiry."""
    repository.write_root(_copy_of_root(repository))


def _select_key(repository: Repository, role: str, keyid: str | None) -> str:
    keyids = repository.root.roles[role].keyids
    if keyid is None:
        return str(keyids[0])
    matches = [each for each in keyids if each.startswith(keyid)]
    if len(matches) != 1 or not keyid:
        reason = f"{len(matches) or 'no'} key{'s begin' if len(matches) > 1 else ' begins'} with {keyid!r}"
        raise KeysError(
            f"role {role}",
            reason,
            f"the first characters of one of these ids: {', '.join(keyids)}",
            "run fleet keys status to see the ids",
        )
    return str(matches[0])


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
