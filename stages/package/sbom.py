"""The software bill of materials: CycloneDX 1.6, with the same bytes for the same content.

A random serial number and the time are optional in the standard (https://cyclonedx.org/docs/1.6/json/). Both are left
out, so that the same content always gives the same bundle.
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
    """A model's path in the bundle, its digest, and the runtime that it needs."""

    path: str
    sha256: str
    runtime: str


def sbom(name: str, licence: str, models: Mapping[str, ModelFile], versions: Mapping[str, str]) -> str:
    """Return CycloneDX JSON for the model files and the libraries that run them or built them.

    Args:
        name: The bundle's name.
        licence: SPDX identifier or name of the licence.
        models: Model files by target.
        versions: Versions by library.
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
    """Return a licence by its SPDX identifier if it has one, otherwise by its name (such as "proprietary")."""
    return DisjunctiveLicense(id=text) if is_supported_id(text) else DisjunctiveLicense(name=text)
