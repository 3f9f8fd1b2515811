"""Models at work: from a slot's files to answers.

Enter at `engine` (requests, one queue, one thread, a swap between two releases) or, without a service, at
`runtime.open_model`, through which the pipeline measures too. `loading` reads a release into memory, `selftest`
replays its golden samples in a process of its own, `shadow` compares a candidate with the release that answers.

May import `storage`, `update` and `core`.
"""
