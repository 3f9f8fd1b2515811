"""Publishes releases, drives and judges rollouts. Knows devices by the inventory and by what their agents say."""
