"""The Debian root of a lab's devices: built once with mmdebstrap, cached, and shared read-only by all devices.

There is one root for this machine's architecture, and one for aarch64, which is built with emulated programs. A third
root is for single aarch64 programs (lab/arm64.py). Its packages are unpacked but not configured, which takes a tenth of
the time.

A root's folder is named after a digest of its recipe, so that a changed recipe creates a new root. The folder appears
only when the root is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.cleanup import session
from lab.emulation import ALONE, emulated
from lab.errors import LabError

SUITE = "bookworm"
# The user that Ansible logs in as, with a key. The user becomes root through sudo.
USER = "admin"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "python3",
    "python3-venv",
    "iproute2",
    "ca-certificates",
)
PROGRAMS = ("base-files", "coreutils", "dash", "libgomp1", "libstdc++6", "python3", "python3-venv")
MOUNTED = ("dev", "mnt", "proc", "tmp")
# Assigns the device's address (written by `Device.seed`) to the interface that nspawn creates.
NETWORK_UNIT = """\
[Unit]
Description=Address of this device in the lab
DefaultDependencies=no
After=local-fs.target
Before=network.target ssh.service
Wants=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
EnvironmentFile=/etc/lab/network
ExecStart=/usr/sbin/ip address replace ${ADDRESS} dev host0
ExecStart=/usr/sbin/ip link set host0 up

[Install]
WantedBy=multi-user.target
"""
CUSTOMIZE = f"""\
set -eu
chroot "$1" useradd --create-home --shell /bin/bash {USER}
printf '{USER} ALL=(ALL) NOPASSWD: ALL\\n' >"$1/etc/sudoers.d/{USER}"
printf '%s' "$LAB_NETWORK_UNIT" >"$1/etc/systemd/system/lab-network.service"
chroot "$1" systemctl enable lab-network.service
chroot "$1" systemctl mask getty.target console-getty.service apt-daily.timer apt-daily-upgrade.timer \\
    systemd-resolved.service systemd-networkd.service systemd-timesyncd.service
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf" "$1"/etc/apt/sources.list.d/*
: >"$1/etc/apt/sources.list"
"""
# In qemu-user 7, systemd 252 fails in two places (EINVAL). It cannot set up a service's credentials, which it does in a
# child cloned with CLONE_NEWNS; the lab does not need these credentials. And it cannot enter a user namespace, because
# only a process without threads can, and qemu has a thread. ONNX Runtime for aarch64 crashes if /sys describes x86_64.
EMULATED = """\
set -eu
mkdir -p "$1/etc/systemd/system/service.d"
printf '%s\\n' '[Service]' LoadCredential= SetCredential= PrivateUsers=no >"$1/etc/systemd/system/service.d/lab.conf"
echo 'tmpfs /sys/devices/system/cpu tmpfs ro 0 0' >"$1/etc/fstab"
"""
APT = ('Acquire::Languages "none"', 'Acquire::Retries "3"')
DPKG = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
)


def cache() -> Path:
    """Return the cache folder: $LAB_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("LAB_CACHE") or Path.home() / ".cache" / "edge-ai-workflow" / "lab")


def digest(arm64: bool = False, boots: bool = True) -> str:
    configured = (PACKAGES, NETWORK_UNIT, CUSTOMIZE, *([EMULATED] if arm64 else []))
    recipe = repr((SUITE, *(configured if boots else (PROGRAMS, MOUNTED)), APT, DPKG))
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def ensure(arm64: bool = False, boots: bool = True) -> Path:
    """Return the root's folder. Build the root if it does not exist; concurrent callers wait. Raises LabError."""
    name = ("arm64" if arm64 else "root") + ("" if boots else "-programs")
    folder = cache() / f"{name}-{digest(arm64, boots)}"
    if folder.is_dir():
        return folder
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _build(partial, arm64, boots)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _build(folder: Path, arm64: bool, boots: bool) -> None:
    command = [
        "mmdebstrap",
        # Skip the check for emulation: it needs another program, and `emulated` already enables emulation.
        *(("--architectures=arm64", "--skip=check/qemu") if arm64 else ()),
        *((f"--customize-hook={EMULATED}",) if arm64 and boots else ()),
        "--mode=root",
        f"--variant={'minbase' if boots else 'extract'}",
        f"--include={','.join(PACKAGES if boots else PROGRAMS)}",
        *(f"--aptopt={option}" for option in APT),
        *(f"--dpkgopt={option}" for option in DPKG),
        *((f"--customize-hook={CUSTOMIZE}",) if boots else ()),
        SUITE,
        str(folder),
    ]
    log = folder.with_suffix(".log")
    # If this machine has no sources for the suite, mmdebstrap uses its default.
    sources = folder.with_suffix(".sources")
    if stanzas := debian_sources():
        sources.write_text("\n\n".join(stanzas) + "\n")
        command.append(str(sources))
    with emulated(f"edge-lab-root-{os.getpid()}", arm64) as prologue, log.open("wb") as stream:
        build = session(
            [*ALONE, f'{prologue}exec "$@"', "root", *command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LAB_NETWORK_UNIT": NETWORK_UNIT},
        )
        with build as process:
            code = process.wait()
    sources.unlink(missing_ok=True)
    if code:
        lines = log.read_text(errors="replace").splitlines()[-8:]
        raise LabError(
            "mmdebstrap",
            "\n    ".join([f"exit code {code}; its last lines:", *lines]),
            f"a Debian {SUITE} root in {folder}",
            f"see {log}; check that a Debian archive is reachable and debian-archive-keyring is installed",
        )
    log.unlink()
    for name in () if boots else MOUNTED:
        (folder / name).mkdir(exist_ok=True)


def debian_sources(folder: Path = Path("/etc/apt/sources.list.d")) -> list[str]:
    """Return this machine's apt sources for the suite as deb822 stanzas. Sources of other suites are ignored."""
    suites = rf"{SUITE}(-updates|-security)?"
    stanzas = []
    for path in sorted(folder.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text().strip()):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            names = [line.partition(":")[2].split() for line in lines if line.lower().startswith("suites:")]
            if names and names[0] and all(re.fullmatch(suites, name) for name in names[0]):
                stanzas.append("\n".join(lines))
    for path in (folder.parent / "sources.list", *sorted(folder.glob("*.list"))):
        for line in path.read_text().splitlines() if path.is_file() else []:
            entry = re.fullmatch(rf"deb\s+(\[[^]]*\]\s+)?(\S+)\s+({suites})\s+(main\b.*)", line.strip())
            if entry:
                stanzas.append(f"Types: deb\nURIs: {entry[2]}\nSuites: {entry[3]}\nComponents: main")
    return stanzas
