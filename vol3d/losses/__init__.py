"""Training losses that MONAI lacks."""
