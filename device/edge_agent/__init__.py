"""The agent: it installs releases on a device, serves predictions and reports the state of the device.

Enter at `cli.main` (the commands) or `service.main` (the service). Imports go down only:
cli > service > api > monitoring > lifecycle > inference > storage > update > core.
`stages` and `fleet` are not imported.
"""

import os

# ONNX Runtime 1.32 for Linux assigns an id to the device, stores events and uploads them. This turns that off. The
# variable is read at import time; ONNX Runtime's own disable_telemetry_events() comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The version and the date of its release: a device's clock that is earlier must be wrong. Change both together.
RELEASED = ("0.1.0", "2026-11-24T00:00:00Z")
