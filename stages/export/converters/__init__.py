"""Converters from PyTorch to the file formats of the device's runtimes.

Each converter is a separate program, because the conversion libraries can crash, hang, or report success although they
failed. The `export` stage checks every converted file. Start reading at `protocol`, which defines the converters of
each runtime, the command line of a converter and the file candidates.json. May import stages.networks and stages.core.
"""
