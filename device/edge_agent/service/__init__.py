"""The long-running process behind `edge-agent serve`.

Enter at `main.serve`; `main.run` puts the parts together. `supervisor` holds the engine and the tasks beside it,
`loader` follows state.json, `trial_judge` ends trials; `endpoints` opens the public sockets, `control_server` the one
for the command line.

May import `api` and what stands below it.
"""
