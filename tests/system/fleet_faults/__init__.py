"""What goes wrong in a rollout, on devices with their own systemd and sshd: `make test-fleet`, docs/explanation/faults.md."""
