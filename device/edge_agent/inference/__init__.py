"""Run models: read a slot's files, check inputs, compute predictions.

Start reading at `engine` (one request queue, one thread, swaps between releases). Without a service, and in the
pipeline's measurements, start at `runtime.open_model`. `loading` reads a release into memory, `selftest` replays its
golden samples in a separate process, `shadow` compares a candidate with the current release.

May import `storage`, `update` and `core`.
"""
