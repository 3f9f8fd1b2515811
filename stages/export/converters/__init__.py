"""Converters: each is a program of its own, because converters crash, hang, or report success wrongly.

Enter at `protocol`: `CONVERTERS` names the commands of each runtime, and the module describes the command line and
candidates.json. The stage export checks every candidate.
May import stages.networks and stages.core.
"""
