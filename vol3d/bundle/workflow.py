"""A bundle's job (inference, evaluate, train) as MONAI's own workflow object, with checked overrides."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from monai.bundle import ConfigWorkflow

from vol3d.bundle.config_layers import override, read_layers
from vol3d.bundle.layout import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vol3d.bundle.layout import BundleLayout


def open_workflow(layout: BundleLayout, job: str, overrides: Mapping[str, Any]) -> ConfigWorkflow:
    """Return the workflow that ``python -m monai.bundle run`` would build from the same files.

    Args:
        layout: The bundle.
        job: A key of ``vol3d.bundle.layout.LAYERS``.
        overrides: New values by config id; ``a::b`` reaches into ``a``.

    Raises:
        BundleError: If a config file is missing or unreadable.
        ConfigError: If an override names no key of the config.
        UsageError: If a path holds characters that MONAI's config parser would change.
    """
    paths = layout.config_paths(job)
    values = {"bundle_root": str(layout.root), **overrides}
    override(read_layers(paths), values)
    with _silent_about_logging():
        return ConfigWorkflow(
            config_file=[str(path) for path in paths],
            meta_file=str(layout.metadata_path),
            workflow_type="train" if "train" in LAYERS[job] else "inference",
            logging_file=False,  # a logging.conf can open files and sockets; the command line configures logging itself
            **values,
        )


@contextmanager
def _silent_about_logging() -> Iterator[None]:
    # MONAI warns on stdout, where results belong, that it was told to leave logging alone.
    logger = logging.getLogger("monai.bundle.workflows")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
