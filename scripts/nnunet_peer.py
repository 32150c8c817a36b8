"""Time nnU-Net v2's predictor on one scan with a network that is handed to it; run by benchmark_inference.py.

PYTHON scripts/nnunet_peer.py JOB.json, where PYTHON is that of an environment with nnU-Net:

    python -m venv nnunet && nnunet/bin/pip install torch==2.13.0 nibabel simpleitk scipy tqdm httpx
    nnunet/bin/pip install --no-deps nnunetv2 dynamic-network-architectures acvl-utils batchgenerators batchgeneratorsv2
    nnunet/bin/pip install -e .      # this project, for the network

The job names the network (a TorchScript-free pickle of the module), the scan, the output, window, spacing and classes.
Prints {"wall_s": [...], "cpu_s": [...]}.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch


def make_plans(job: dict[str, Any]) -> dict[str, Any]:
    """Return the plans of one 3D configuration: the job's window and spacing, CT window scaled like the bundle's."""
    low, high = job["window_hu"]
    configuration = {
        "data_identifier": "peer",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": job["roi_size"],
        "spacing": job["spacing_mm"],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
        "batch_dice": False,
        "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    intensity = {"percentile_00_5": low, "percentile_99_5": high, "mean": low, "std": high - low}
    return {
        "dataset_name": "peer",
        "plans_name": "peer",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {"0": intensity},
        "label_manager": "LabelManager",
        "experiment_planner_used": "none",
        "original_median_spacing_after_transp": job["spacing_mm"],
        "original_median_shape_after_transp": job["roi_size"],
    }


def make_predictor(job: dict[str, Any]) -> Any:
    """Return an initialised ``nnUNetPredictor``: step of half a window, Gaussian weights, no mirroring, on the CPU."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415 - after the environment is set
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415

    network = torch.load(job["network"], map_location="cpu", weights_only=False).eval()
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        verbose=False,
        allow_tqdm=False,
    )
    plans = PlansManager(make_plans(job))
    labels = {"background": 0} | {f"class_{k}": k for k in range(1, job["num_classes"])}
    dataset = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    predictor.manual_initialization(
        network, plans, plans.get_configuration("3d_fullres"), [network.state_dict()], dataset, "nnUNetTrainer", None
    )
    return predictor


def main() -> None:
    """Run the job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, str(Path(job["output"]).parent))
    torch.set_num_threads(job["num_threads"])
    walls, cpus = [], []
    with contextlib.redirect_stdout(sys.stderr):
        predictor = make_predictor(job)
        for _ in range(job["repeats"]):
            wall, cpu = time.perf_counter(), time.process_time()
            predictor.predict_from_files_sequential(
                [[job["image"]]], [job["output"]], save_probabilities=False, overwrite=True
            )
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    sys.stdout.write(json.dumps({"wall_s": walls, "cpu_s": cpus}) + "\n")


if __name__ == "__main__":
    main()
