"""Decide on rollouts: which device gets which release in which wave, whether a wave passes, which devices roll back.

A rollout calls `plan.plan_rollout` first, then `preflight.run_preflight`. For each wave, the controller then uses
`bake` and `verdict`. `decisions` derives decisions from a rollout's state. `resume`, `pending_rollbacks` and
`release_history` evaluate earlier rollouts. `manual_rollback` supports a rollback that an operator starts. No code here
contacts a device: functions receive device statuses and return decisions. This package may import records, devices,
inventory, releases and the packages that these four packages may import.
"""
