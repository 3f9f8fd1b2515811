"""Converters from PyTorch to the file formats of the device's runtimes.

Each converter is a separate program, because the libraries behind them may crash, hang, or report success wrongly. The
stage export checks every candidate. Enter at `protocol`: it defines the converters of each runtime, their command line
and candidates.json.
May import stages.networks and stages.core.
"""
