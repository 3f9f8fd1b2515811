"""The command line `edge-agent`: reads arguments, calls one function for each command, prints text or JSON.

Enter at `main.main`. `text` is for people; output.schema.json says what `--json` prints.

May import every other package of the agent; most of it when a command needs it, so that `status` starts fast.
"""
