"""The files of a bundle folder, by name; nothing here reads a config or imports torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vol3d.errors import BundleError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = {
    "inference": ("inference",),
    "evaluate": ("inference", "evaluate"),
    "train": ("inference", "train"),
    "multi_gpu": ("inference", "train", "multi_gpu"),
}
"""Config files of each job, in the order in which later ones override earlier ones."""


@dataclass(frozen=True)
class BundleLayout:
    """Paths inside one bundle.

    Args:
        root: The bundle's folder.
    """

    root: Path

    @property
    def name(self) -> str:
        """The folder's name is the bundle's name."""
        return self.root.name

    @property
    def metadata_path(self) -> Path:
        """``configs/metadata.json``."""
        return self.root / "configs" / "metadata.json"

    @property
    def weights_path(self) -> Path:
        """``models/model.pt``, a state dict."""
        return self.root / "models" / "model.pt"

    def config_paths(self, job: str) -> list[Path]:
        """Return the config files of a job (a key of ``LAYERS``), base first.

        Raises:
            BundleError: If one is missing.
        """
        paths = [self.root / "configs" / f"{layer}.yaml" for layer in LAYERS[job]]
        for path in paths:
            if not path.is_file():
                raise BundleError(f"bundle {self.name} must have configs/{path.name} for this job, got no such file")
        return paths

    def metadata(self) -> dict[str, Any]:
        """Read the metadata.

        Raises:
            BundleError: If the file is missing or is not a JSON object.
        """
        try:
            content = json.loads(self.metadata_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"bundle {self.name} must have a readable configs/metadata.json, got {error}") from error
        if not isinstance(content, dict):
            raise BundleError(f"metadata.json of {self.name} must be a JSON object, got {type(content).__name__}")
        return content

    def require_weights(self) -> Path:
        """Return the path of the weights.

        Raises:
            WeightsError: If they are missing: a run on random weights would look like a result.
        """
        if not self.weights_path.is_file():
            raise WeightsError(
                f"bundle {self.name} must have weights at models/model.pt, got no such file; "
                f"train them with `vol3d train {self.name} --data DIR` or name others with --set ckpt_path=FILE"
            )
        return self.weights_path
