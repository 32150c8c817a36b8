"""Training and evaluation steps that MONAI's engines lack."""
