"""The agent: it installs releases on a device, serves predictions and reports the state of the device.

Start reading at `cli.main` (the commands) or `service.main` (the service). A package imports only packages that follow
it in this list: cli, service, api, monitoring, lifecycle, inference, storage, update, core. The agent imports neither
`stages` nor `fleet`.
"""

import os

# ONNX Runtime 1.32 for Linux assigns an id to the device, stores events and uploads them. This variable turns this
# telemetry off. It must be set before ONNX Runtime is imported, so the library's own disable_telemetry_events() would
# be too late.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# The version of the agent and the date of its release. If a device's clock shows an earlier date, the clock must be
# wrong. Change both values together.
RELEASED = ("0.2.0", "2026-12-01T00:00:00Z")
