"""The command line `edge-agent`: parse the arguments, run the command, and print its result as text or JSON.

Start reading at `main.main`. `text` formats results for operators, and output.schema.json describes the output of
`--json`.

May import every other package of the agent. Most packages are imported only when a command needs them, so that
`edge-agent status` starts fast.
"""
