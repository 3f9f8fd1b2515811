"""The foundation of the agent: errors and exit codes, configuration, state.json, durable writes, logs.

Start reading at `errors` (one class for each exit code), `config` (the TOML file as objects), `layout` (the path of
each file) and `state` (the current release, and the lock). `fault_points` lists every place where tests inject faults.

This package imports no other package of the agent.
"""
