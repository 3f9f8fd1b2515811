"""What every part of the agent stands on: errors and exit codes, configuration, state.json, durable writes, logs.

Enter at `errors` (one class for each exit code), `config` (the TOML file as objects), `layout` (which file lies where)
and `state` (which release is current, and the lock). `fault_points` names every place where tests break something.

Imports nothing else of the agent.
"""
