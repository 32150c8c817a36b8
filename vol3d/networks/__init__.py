"""Networks that MONAI does not have, or has worse; each file says which and why."""
