"""Lines of other libraries that tell a user nothing, each silenced by its own rule; all other warnings show.

Versions in which each was seen: MONAI 1.6.1, ignite 0.5.5.
"""

from __future__ import annotations

import logging
import warnings


def silence_known_lines() -> None:
    """Add the rules; may be called again."""
    # A reader that LoadImage makes unasked, with all its others, reports that an optional NVIDIA package is absent.
    warnings.filterwarnings("ignore", "NvImgCodecPydicomReader: nvImageCodec decoder plugin", UserWarning)
    # MONAI answers `logging_file=False`, by which vol3d keeps a bundle from configuring logging, with a warning. A
    # logger that exists before MONAI asks for it also gets no handler of MONAI's for stdout, where only results belong.
    logging.getLogger("monai.bundle.workflows").addFilter(_is_not_about_logging_file)
    # ignite logs every exception that leaves an engine and raises it again: it would be reported twice.
    logging.getLogger("ignite").setLevel(logging.CRITICAL)


def _is_not_about_logging_file(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Logging file is set to False")
