"""List the libraries that affect a build, with their installed versions."""

from __future__ import annotations

from importlib import metadata

# Libraries that a device needs to run an exported file, by the target's runtime.
AT_RUNTIME = {"onnxruntime": ("numpy", "onnxruntime"), "litert": ("numpy", "ai-edge-litert")}
# Libraries that affect the data, the weights or the exported files.
AT_BUILD = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "duckdb",
    "ibis-framework",
    "lightning-fabric",
    "litert-torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandera",
    "pyarrow",
    "scikit-learn",
    "torch",
    "torch-pruning",
)


def libraries() -> dict[str, str]:
    """Return the installed version of each library in `AT_BUILD` and `AT_RUNTIME`, by the library's name.

    Libraries that are not installed are omitted.
    """
    versions = {}
    for name in sorted({*AT_BUILD, *(name for names in AT_RUNTIME.values() for name in names)}):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
