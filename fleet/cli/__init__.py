"""The command line: `python -m fleet`. Modules here parse arguments, call one function and print its result.

Enter at `main`; its MODULES lists the modules with commands. `steps` has `fleet wave ...`, which playbooks call at
every step of a rollout; it imports late, because a rollout waits for a dozen such processes.
output.schema.json describes the output of `--json`. May import all of fleet; nothing imports it.
"""
