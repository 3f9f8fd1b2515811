"""The long-running process behind `edge-agent serve`.

Start reading at `main.serve`; `main.run` creates and connects the parts. `supervisor` owns the engine and the
background tasks, `loader` loads the release that state.json names, and `trial_judge` confirms releases or rolls them
back. `endpoints` opens the public sockets, and `control_server` opens the socket of the command line.

May import `api` and the packages below it.
"""
