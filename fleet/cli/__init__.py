"""The command line: `python -m fleet`. Modules here parse arguments, call one function and print what it returns.

`main` is the way in; its MODULES names those that have commands. `steps` has `fleet wave ...`, what playbooks call at
every step of a rollout; its modules are imported late, because a rollout waits for a dozen such programs.
output.schema.json describes what `--json` prints. May import all of fleet; nothing imports it.
"""
