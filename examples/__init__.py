"""Examples that show the complete workflow on one machine: `make demo` runs `python -m examples.demo`.

An example calls the same commands as a user and checks the results: its exit code is 0 only if all results are as
expected. Examples may import every package of the project and tests.support.
"""
