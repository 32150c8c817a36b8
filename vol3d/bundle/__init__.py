"""MONAI bundles: where they are, how their config layers combine, and whether they keep what their metadata says."""
