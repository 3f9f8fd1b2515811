"""Create the bundle's software bill of materials (SBOM) in the format CycloneDX 1.6.

The standard allows a random serial number and a timestamp (https://cyclonedx.org/docs/1.6/json/). Both are left out, so
that the same content always gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from stages.report.libraries import AT_RUNTIME


@dataclass(frozen=True)
class ModelFile:
    """A model file in the bundle: its path, its SHA-256, and the runtime that the model needs."""

    path: str
    sha256: str
    runtime: str


def sbom(name: str, licence: str, models: Mapping[str, ModelFile], versions: Mapping[str, str]) -> str:
    """Return the SBOM as CycloneDX JSON. It lists the model files and the libraries that build or run the models.

    Args:
        name: The bundle's name.
        licence: SPDX identifier or name of the model's licence.
        models: The model file of each target, by the target's name.
        versions: The version of each library, by the library's name.
    """
    needed = {library for model in models.values() for library in AT_RUNTIME[model.runtime]}
    root = Component(name=name, type=ComponentType.APPLICATION, bom_ref="bundle", licenses=[_licence(licence)])
    files = {
        target: Component(
            name=model.path,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"model:{target}",
            description=f"the model, exported as {target}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.sha256)],
            licenses=[_licence(licence)],
        )
        for target, model in sorted(models.items())
    }
    packages = {
        library: Component(
            name=library,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"library:{library}",
            purl=PackageURL("pypi", None, library, version),
            # CycloneDX: "excluded" are components that were used to build, but are absent at run time.
            scope=ComponentScope.REQUIRED if library in needed else ComponentScope.EXCLUDED,
        )
        for library, version in sorted(versions.items())
    }
    bom = Bom(components=[*files.values(), *packages.values()])
    bom.metadata.component = root
    bom.register_dependency(root, files.values())
    for target, model in models.items():
        bom.register_dependency(files[target], [packages[library] for library in AT_RUNTIME[model.runtime]])
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    document.pop("serialNumber", None)
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _licence(text: str) -> DisjunctiveLicense:
    """Return the CycloneDX object for a licence, which `text` gives as an SPDX identifier or as a name."""
    return DisjunctiveLicense(id=text) if is_supported_id(text) else DisjunctiveLicense(name=text)
