"""Slots: a release is installed completely and verified, or not at all; slots in use are kept."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from edge_agent.core.agent_state import State, Trial
from edge_agent.core.errors import FitError, NoReleaseError, StorageError, TrustError
from edge_agent.core.fault_points import VARIABLE
from edge_agent.storage import release_file, slots
from edge_agent.storage.archive import inspect

from tests.support.agent.releases import Releases

RELEASE = "pump@1.0.0"


class Device(Releases):
    """A device without a service, and its releases."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = self.repository.config(folder / "state")
        self.layout = self.config.layout

    def configure(self, **install: float) -> None:
        self.config = replace(self.config, install=replace(self.config.install, **install))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def install(device: Device, release: str = RELEASE, **changes: object) -> dict[str, object]:
    if release not in device.bundles:
        device.publish(release, **changes)
    return slots.install(device.config, device.offer(release), device.bundles[release].archive)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_installed_release_is_complete_and_records_its_origin(device: Device) -> None:
    manifest = install(device)

    assert slots.installed(device.layout) == [RELEASE]
    assert slots.verify(device.layout, RELEASE) == manifest == device.bundles[RELEASE].manifest
    record = release_file.read(device.layout.slot(RELEASE))
    assert (record.release, record.sha256) == (RELEASE, device.offer(RELEASE).sha256)
    assert record.custom["commit"] == "0" * 40


def test_installing_again_changes_nothing(device: Device) -> None:
    install(device)
    before = everything(device.layout.releases)

    install(device)

    assert everything(device.layout.releases) == before


@pytest.mark.parametrize("file", ["release.json", "bundle/manifest.json", "bundle/targets/onnx-fp32/model.onnx"])
def test_one_changed_byte_is_found_and_repaired_by_the_next_install(device: Device, file: str) -> None:
    install(device)
    path = device.layout.slot(RELEASE) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrustError, match=r"damaged[\s\S]*edge-agent install pump@1\.0\.0"):
        slots.verify(device.layout, RELEASE)

    install(device)

    slots.verify(device.layout, RELEASE)
    assert [path.name for path in device.layout.releases.iterdir()] == [RELEASE]


def without_digest(record: dict[str, str]) -> str:
    return json.dumps({name: value for name, value in record.items() if name != "sha256"})


def of_another_archive(record: dict[str, str]) -> str:
    return json.dumps({**record, "sha256": "f" * 64})


def older(record: dict[str, str]) -> str:
    return json.dumps({**record, "installed_at": "1970-01-01T00:00:00+00:00"})


def no_object(record: dict[str, str]) -> str:
    return json.dumps(list(record))


def deep(record: dict[str, str]) -> str:
    return "[" * 100_000


@pytest.mark.parametrize("change", [without_digest, of_another_archive, older, no_object, deep])
def test_a_changed_word_of_release_json_is_found_and_repaired(
    device: Device, change: Callable[[dict[str, str]], str]
) -> None:
    install(device)
    file = device.layout.slot(RELEASE) / "release.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(TrustError, match=r"damaged[\s\S]*edge-agent install pump@1\.0\.0"):
        slots.verify(device.layout, RELEASE)

    install(device)

    assert slots.verify(device.layout, RELEASE)
    assert release_file.read(device.layout.slot(RELEASE)).sha256 == device.offer(RELEASE).sha256


def test_a_missing_or_additional_file_is_damage(device: Device) -> None:
    install(device)
    bundle = device.layout.bundle(RELEASE)
    (bundle / "extra").write_text("")
    with pytest.raises(TrustError, match="extra"):
        slots.verify(device.layout, RELEASE)
    (bundle / "extra").unlink()
    (bundle / "golden" / "inputs.npy").unlink()

    with pytest.raises(TrustError, match=r"golden/inputs\.npy"):
        slots.verify(device.layout, RELEASE)


def test_another_content_under_an_installed_version_is_refused(device: Device) -> None:
    install(device)
    before = everything(device.layout.releases)

    with pytest.raises(TrustError, match="the same content for the same version"):
        slots.install(device.config, device.offer(RELEASE, sha256="f" * 64), device.bundles[RELEASE].archive)

    assert everything(device.layout.releases) == before


def test_a_bundle_of_another_name_is_refused(device: Device) -> None:
    device.publish("digits@1.0.0", name="pump")

    with pytest.raises(TrustError, match=r"name: found 'pump'"):
        install(device, "digits@1.0.0")

    assert list(device.layout.releases.iterdir()) == []


def test_what_does_not_fit_is_refused_before_anything_is_written(device: Device) -> None:
    device.publish(RELEASE, requirements={"device_types": ["jetson"]})

    with pytest.raises(FitError, match=r"device\.type: found generic; expected one of jetson"):
        install(device)

    assert list(device.layout.releases.iterdir()) == []


def test_disk_space_that_a_release_needs_beside_itself_counts(device: Device) -> None:
    free_mb = shutil.disk_usage(device.folder).free / 1e6
    device.publish(RELEASE, requirements={"disk_mb": free_mb + 100})

    with pytest.raises(FitError, match="free disk space after unpacking the bundle"):
        install(device)


def test_without_space_nothing_is_unpacked_and_the_message_has_the_numbers(device: Device) -> None:
    device.configure(reserve_mb=shutil.disk_usage(device.folder).free / 1e6 + 100)

    with pytest.raises(StorageError, match=r"MB are free[\s\S]*edge-agent prune"):
        install(device)

    assert list(device.layout.releases.iterdir()) == []


def test_the_required_space_is_that_of_the_files(device: Device) -> None:
    archive = device.publish(RELEASE, padding=1_000_000).archive
    install(device)

    used = sum(path.stat().st_blocks * 512 for path in device.layout.bundle(RELEASE).rglob("*"))
    estimated = inspect(archive, "manifest.json").disk_bytes
    assert used <= estimated <= 1.2 * used


def test_an_archive_that_is_larger_than_allowed_is_refused(device: Device) -> None:
    device.configure(limit_mb=0.001)

    with pytest.raises(TrustError, match="1000 bytes"):
        install(device)

    assert list(device.layout.releases.iterdir()) == []


@pytest.mark.parametrize("content", [b"not zstandard", zstandard.ZstdCompressor().compress(b"\0" * 1024)])
def test_an_archive_without_a_bundle_is_refused(device: Device, content: bytes) -> None:
    device.publish(RELEASE)
    broken = device.folder / "broken.tar.zst"
    broken.write_bytes(content)

    with pytest.raises(TrustError, match=r"not a complete bundle|no manifest\.json"):
        slots.install(device.config, device.offer(RELEASE), broken)

    assert list(device.layout.releases.iterdir()) == []


def test_a_bundle_with_another_file_than_its_manifest_says_leaves_nothing(device: Device) -> None:
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(device.publish(RELEASE).archive.read_bytes())
    forged = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(raw)) as old, tarfile.open(fileobj=forged, mode="w") as new:
        for entry in old:
            content = old.extractfile(entry).read()  # type: ignore[union-attr]
            content = content[:-1] + b"!" if entry.name == "model_card.md" else content
            new.addfile(entry, io.BytesIO(content))
    path = device.folder / "forged.tar.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress(forged.getvalue()))

    with pytest.raises(TrustError, match=r"model_card\.md: found sha256"):
        slots.install(device.config, device.offer(RELEASE), path)

    assert list(device.layout.releases.iterdir()) == []


@pytest.mark.parametrize("fault", ["error", "nospace"])
@pytest.mark.parametrize("point", ["install.unpacked_one", "install.after_files_fsync", "install.before_rename"])
def test_a_disk_that_fails_leaves_nothing_and_the_old_slots(
    device: Device, monkeypatch: pytest.MonkeyPatch, point: str, fault: str
) -> None:
    install(device)
    device.publish("pump@1.1.0")
    before = everything(device.layout.releases)
    monkeypatch.setenv(VARIABLE, f"{point}={fault}")

    with pytest.raises(OSError, match=point):
        install(device, "pump@1.1.0")

    assert everything(device.layout.releases) == before


def test_prune_keeps_what_is_needed_and_the_highest_versions(device: Device) -> None:
    versions = ["0.9.0", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.9.0", "1.10.0"]
    for version in versions:
        install(device, f"pump@{version}")
    assert slots.installed(device.layout) == [f"pump@{version}" for version in versions]
    state = State(current="pump@1.0.0-rc.2", previous="pump@0.9.0")

    assert slots.prune(device.config, state, keep=2) == ["pump@1.0.0-rc.10", "pump@1.0.0"]
    assert slots.prune(device.config, state) == ["pump@1.9.0"]
    on_trial = State(current="pump@1.10.0", previous="pump@0.9.0", trial=Trial("pump@1.10.0", "2026-01-01T00:00:00Z"))
    assert slots.prune(device.config, on_trial, keep=0) == ["pump@1.0.0-rc.2"]
    assert slots.installed(device.layout) == ["pump@0.9.0", "pump@1.10.0"]


def test_a_slot_that_is_half_removed_or_half_filled_is_no_slot(device: Device) -> None:
    install(device)
    for name in (".pump@1.1.0.partial", ".pump@0.9.0.removed"):
        shutil.copytree(device.layout.slot(RELEASE), device.layout.releases / name)

    assert slots.installed(device.layout) == [RELEASE]
    assert slots.recover(device.layout) == [".pump@0.9.0.removed", ".pump@1.1.0.partial"]
    assert [path.name for path in device.layout.releases.iterdir()] == [RELEASE]


@pytest.mark.parametrize("name", ["pump@2.0.0", "../state.json", "pump", ""])
def test_the_error_for_a_release_that_is_not_installed_lists_the_installed_ones(device: Device, name: str) -> None:
    install(device)

    with pytest.raises(NoReleaseError, match=r"one of: pump@1\.0\.0"):
        slots.verify(device.layout, name)
    with pytest.raises(NoReleaseError):
        slots.remove(device.layout, name)


def test_release_json_of_another_release_is_damage(device: Device) -> None:
    install(device)
    shutil.copytree(device.layout.slot(RELEASE), device.layout.slot("pump@9.0.0"))

    with pytest.raises(TrustError, match="damaged"):
        slots.verify(device.layout, "pump@9.0.0")
    assert json.loads((device.layout.slot(RELEASE) / "release.json").read_text())["schema_version"] == 1
