"""The bill of materials: valid CycloneDX, the same bytes each time."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from stages.package.sbom import ModelFile, sbom
from stages.report.libraries import libraries

MODELS = {
    "onnx-int8": ModelFile("targets/onnx-int8/model.onnx", "1" * 64, "onnxruntime"),
    "onnx-fp32": ModelFile("targets/onnx-fp32/model.onnx", "2" * 64, "onnxruntime"),
}
VERSIONS = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "onnxruntime": "1.32.0"}


@pytest.mark.parametrize("licence", ["Apache-2.0", "all rights reserved"])
def test_it_is_valid_cyclonedx(licence: str) -> None:
    text = sbom("digits", licence, MODELS, VERSIONS)

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert licence in text


def test_the_same_content_gives_the_same_bytes_without_time_or_serial_number() -> None:
    backwards = dict(reversed(MODELS.items()))
    text = sbom("digits", "Apache-2.0", MODELS, VERSIONS)

    assert text == sbom("digits", "Apache-2.0", backwards, dict(reversed(VERSIONS.items())))
    assert "serialNumber" not in text
    assert "timestamp" not in text


def test_models_carry_their_hashes_and_libraries_their_package_urls() -> None:
    document = json.loads(sbom("digits", "Apache-2.0", MODELS, VERSIONS))
    components = {component["name"]: component for component in document["components"]}

    model = components["targets/onnx-fp32/model.onnx"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "2" * 64}]
    assert components["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    assert components["torch"]["scope"] == "excluded"
    assert components["onnxruntime"]["scope"] == "required"
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in document["dependencies"]}
    assert needs["model:onnx-fp32"] == ["library:numpy", "library:onnxruntime"]


def test_versions_are_those_that_are_installed() -> None:
    versions = libraries()

    assert versions["onnxruntime"] == version("onnxruntime")
    assert versions["torch"] == version("torch")
