"""Programs that show the whole way at once, on one machine: `make demo` is `python -m examples.demo`.

An example calls the same commands as a person and checks its own outcome: its exit code is 0 only where all came out
as it has to. Examples may import every package of the project, and tests.support.
"""
