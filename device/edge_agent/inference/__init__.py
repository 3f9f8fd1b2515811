"""Run models: load an installed release, check inputs, and compute predictions.

Start reading at `engine`, which answers requests with one queue and one thread, and replaces the loaded release.
Programs that run a model without the service, such as the pipeline's measurements, use `runtime.open_model`. `loading`
loads a release into memory, `selftest` tests a release on its golden samples in a separate process, and `shadow`
compares a second release with the current release.

May import `storage`, `update` and `core`.
"""
