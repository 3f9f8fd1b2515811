"""The foundation of the agent: errors and exit codes, configuration, state.json, file writes, locks and logs.

Start reading at `errors` (one class for each exit code), `config` (the TOML file as objects), `layout` (the path of
each file) and `state` (state.json and its lock). `agent_state` is the content of state.json, and `kept_state` is a
state that could not be written there. `fault_points` lists every place where tests inject faults.

This package imports no other package of the agent.
"""
