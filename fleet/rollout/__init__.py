"""Decide on rollouts: what runs where, which devices change when, whether a wave passes, which devices roll back.

In the order of a rollout: `plan.plan_rollout`, `preflight.run_preflight`, then for each wave the controller with `bake`
and `verdict`. `decisions` holds what follows from a rollout's state. `resume`, `pending_rollbacks` and
`release_history` evaluate earlier rollouts; `manual_rollback` serves an operator. No code here contacts a device:
statuses come in, decisions go out. May import records, devices, inventory, releases and what is below them.
"""
