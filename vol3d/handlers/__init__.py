"""Ignite handlers that MONAI lacks; each has ``attach(engine)`` and is named in a bundle's YAML."""
