"""The agent: installs releases on a device, serves predictions and reports the device's state.

Enter at `cli.main` (commands) or `service.main` (the process).
Imports go down: cli > service > api > monitoring > lifecycle > inference > storage > update > core. Nothing
of stages or fleet is imported.
"""

import os

# ONNX Runtime 1.32 for Linux gives the device an id, keeps events and uploads them. Nothing leaves a device by itself.
# It looks at this when it is imported; its own disable_telemetry_events() comes too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The version and the day of its release, which is no later than any time at which it runs. They change together.
RELEASED = ("0.1.0", "2026-11-24T00:00:00Z")
