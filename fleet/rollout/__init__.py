"""Decide on rollouts: what runs where, which devices change when, whether a wave passes, which devices roll back.

A rollout calls `plan.plan_rollout` first, then `preflight.run_preflight`. For each wave, the controller then uses
`bake` and `verdict`. `decisions` derives decisions from a rollout's state. `resume`, `pending_rollbacks` and
`release_history` evaluate earlier rollouts; `manual_rollback` serves an operator. No code here contacts a device:
functions receive device statuses and return decisions. This package may import records, devices, inventory, releases
and the packages below them.
"""
