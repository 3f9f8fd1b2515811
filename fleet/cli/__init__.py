"""The command line: `python -m fleet`. Its modules parse arguments, call one function and print the function's result.

The entry point is `main`; its constant MODULES lists the modules that define commands. `steps` defines the commands
`fleet wave ...`, which playbooks call during a rollout. `steps` imports other modules only when a step needs them,
because a rollout runs a dozen of these commands as separate processes. output.schema.json describes the output of
`--json`. This package may import every other package of fleet; no other package imports this one.
"""
