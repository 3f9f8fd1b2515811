"""An installed release is read into memory as its manifest describes, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from edge_agent.core.config import Config
from edge_agent.core.errors import FitError, NoReleaseError, SelfTestError, TrustError
from edge_agent.inference.loading import LoadedRelease, load

from stages.core.files import sha256
from tests.support.agent.serving import RELEASE, installed


def test_a_loaded_release_has_the_digest_of_its_own_bytes(settings: Config, loaded: LoadedRelease) -> None:
    file = settings.layout.bundle(RELEASE) / "targets/onnx-fp32/model.onnx"

    assert loaded.sha256 == sha256(file)
    assert (loaded.release, loaded.target) == (RELEASE, "onnx-fp32")
    assert loaded.reference is not None
    np.testing.assert_allclose(loaded.model.predict(loaded.golden_inputs), loaded.golden_outputs, atol=1e-6)


def test_a_target_is_selected_or_named(settings: Config) -> None:
    both = installed(settings, targets=("onnx-fp32", "tflite-int8"))

    assert both.target == "tflite-int8"
    assert load(settings, RELEASE, "onnx-fp32").target == "onnx-fp32"
    with pytest.raises(FitError, match="onnx-int8"):
        load(settings, RELEASE, "onnx-int8")


def test_a_release_that_is_not_there(settings: Config) -> None:
    with pytest.raises(NoReleaseError, match="edge-agent install pump@9"):
        load(settings, "pump@9.0.0")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("manifest.json", b"{}", "schema_version"),
        ("targets/onnx-fp32/model.onnx", b"other", "sha256"),
        ("golden/inputs.npy", b"no array", "not an array"),
        ("drift_reference.json", b"{}", "sha256"),
    ],
)
def test_a_damaged_slot(settings: Config, loaded: LoadedRelease, file: str, content: bytes, words: str) -> None:
    (settings.layout.bundle(RELEASE) / file).write_bytes(content)

    with pytest.raises(TrustError, match=words) as refused:
        load(settings, RELEASE)
    assert "install pump@1.0.0 again" in refused.value.remedy


def test_a_shape_that_the_file_does_not_have(settings: Config, loaded: LoadedRelease) -> None:
    path = settings.layout.bundle(RELEASE) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["input"]["shape"] = [2, 17]
    path.write_text(json.dumps(manifest))

    with pytest.raises(TrustError, match=r"input.shape: \[2, 16\]"):
        load(settings, RELEASE)


def test_a_file_that_does_not_load(settings: Config) -> None:
    with pytest.raises(SelfTestError, match="not loadable"):
        installed(settings, fault="garbage")
