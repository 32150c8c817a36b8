"""What runs a network on a batch of windows: eager PyTorch on any device, OpenVINO on CPUs."""
