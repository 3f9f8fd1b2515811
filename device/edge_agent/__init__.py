"""What runs on a device. Imports nothing from the pipeline or the fleet."""
