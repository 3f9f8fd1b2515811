"""Decide on rollouts: what is to run where, who changes when, whether a wave did well, who rolls back.

In the order of a rollout: `preparation.plan`, `start.preflight`, `controller.Course` with `bake` and `verdict` for
each wave, and what follows from a state in `decisions`. `resume`, `pending_rollbacks` and `release_history` look at
earlier rollouts, `manual_rollback` is for a person. No device is reached from here: statuses come in, decisions go
out. May import records, devices, inventory, releases and what is below them.
"""
