"""Write each case's label map when an evaluator has predicted it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Events

from vol3d.data.volume_writer import write_labelmap
from vol3d.geometry import VolumeGeometry


class LabelmapSaver:
    """Write ``output_dir/CASE.nii.gz`` from the key ``pred`` of every evaluated case.

    MONAI's ``SaveImage`` writes where its ``output_postfix`` and folders say and trusts the result; here the file is
    re-read with a second library and renamed only if its grid and voxels are those of the prediction.

    Args:
        output_dir: Folder for the label maps; made if missing.
        overwrite: Replace files that are there already.

    Raises:
        OutputError: From the running engine, if a file is there already or cannot be written.
    """

    def __init__(self, output_dir: str, overwrite: bool = True) -> None:
        self.output_dir = Path(output_dir)
        self.overwrite = overwrite

    def attach(self, engine: Any) -> None:
        """Register with an evaluator whose postprocessing brings ``pred`` back to the scan's grid."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Write the cases of the present batch."""
        # MONAI keeps keys that came with the batch, such as the case name, out of the output.
        for item, source in zip(engine.state.output, engine.state.batch, strict=True):
            pred = item["pred"]
            labels = pred[0].cpu().numpy().astype(np.uint8)
            geometry = VolumeGeometry(labels.shape, np.asarray(pred.affine, dtype=np.float64))
            write_labelmap(self.output_dir / f"{source['case']}.nii.gz", labels, geometry, overwrite=self.overwrite)
