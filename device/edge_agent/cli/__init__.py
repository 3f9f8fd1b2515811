"""The command line `edge-agent`: parse arguments, call one function for each command, print text or JSON.

Enter at `main.main`. `text` formats results for operators; output.schema.json describes the output of `--json`.

May import every other package of the agent; most of them only when a command needs them, so that `status` starts fast.
"""
