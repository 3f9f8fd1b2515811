"""The documentation: Markdown pages, and the programs below `docs/generator` that write and check them."""
