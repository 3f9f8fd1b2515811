"""The long-running process behind `edge-agent serve`.

Start reading at `main.serve`; `main.run` puts the parts together. `supervisor` holds the engine and the background
tasks, `loader` loads the release that state.json names, `trial_judge` ends trials. `endpoints` opens the public
sockets, `control_server` the command line's socket.

May import `api` and the packages below it.
"""
