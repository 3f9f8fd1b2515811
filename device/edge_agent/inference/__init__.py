"""Run models: load an installed release, check inputs, and compute predictions.

Start reading at `engine`, which serves requests with one queue and one thread and swaps releases. Programs that run a
model without the service, such as the pipeline's measurements, use `runtime.open_model`. `loading` reads a release into
memory, `selftest` replays its golden samples in a separate process, and `shadow` compares a candidate with the current
release.

May import `storage`, `update` and `core`.
"""
