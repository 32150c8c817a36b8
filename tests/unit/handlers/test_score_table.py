"""The table that an evaluation leaves behind, made by a real MONAI evaluator."""

from __future__ import annotations

import csv
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted

from vol3d.errors import DataError, GeometryError, OutputError, UsageError
from vol3d.handlers.score_table import ScoreTableHandler

NAMES = {"0": "background", "1": "anterior", "2": "posterior"}
AFFINE = torch.diag(torch.tensor([-2.0, -1.0, 1.0, 1.0], dtype=torch.float64))


class OneHotShift(torch.nn.Module):
    """Answers with the label (which is the image here) moved by ``shift`` voxels, as logits."""

    def __init__(self, shift: int = 1) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        moved = torch.roll(image[:, 0].long(), self.shift, dims=1)
        return torch.nn.functional.one_hot(moved, 3).movedim(-1, 1).float()


def labelmap(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    label = torch.zeros((1, 16, 10, 8), dtype=dtype)
    label[:, 2:7, 2:8, 2:6] = 1
    label[:, 7:12, 2:8, 2:6] = 2
    return label


def item(case: str, affine: torch.Tensor = AFFINE) -> dict[str, Any]:
    return {
        "case": case,
        "image": MetaTensor(labelmap(), affine=affine),
        "label": MetaTensor(labelmap(), affine=affine),
    }


def evaluate(handler: ScoreTableHandler, items: list[dict[str, Any]], batch_size: int = 1, shift: int = 1) -> Any:
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=batch_size),
        network=OneHotShift(shift),
        postprocessing=AsDiscreted(keys="pred", argmax=True),
        val_handlers=[handler],
    )
    evaluator.run()
    return evaluator


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores_per_case.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_every_case_and_class_has_a_row_whatever_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    evaluate(ScoreTableHandler(tmp_path, NAMES), [item("c"), item("a"), item("b")], batch_size)
    rows = read_table(tmp_path)
    places = [(row["case"], row["class"]) for row in rows]
    assert places == [(case, name) for case in "abc" for name in ("anterior", "posterior")]
    assert {row["dice"] for row in rows} == {"0.8"}
    # One voxel along the first axis, which is 2 mm.
    assert {row["hd95_mm"] for row in rows} == {"2"}
    assert {row["volume_ml_label"] for row in rows} == {"0.24"}


def test_summary_and_engine_hold_the_mean_dice(tmp_path: Path) -> None:
    evaluator = evaluate(ScoreTableHandler(tmp_path, NAMES), [item("a"), item("b")])
    summary = json.loads((tmp_path / "scores_summary.json").read_text())
    assert evaluator.state.metrics["mean_dice"] == summary["mean_dice"] == pytest.approx(0.8)
    assert summary["num_cases"] == 2
    assert summary["classes"]["anterior"]["dice"]["low"] == pytest.approx(0.8)


def test_the_table_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="vol3d.handlers.score_table"):
        evaluate(ScoreTableHandler(tmp_path, NAMES), [item("a"), item("b")])
    assert "2 cases, mean and 95% interval" in caplog.text
    assert "foreground" in caplog.text


def test_nothing_but_the_two_files_is_left(tmp_path: Path) -> None:
    evaluate(ScoreTableHandler(tmp_path / "new" / "folder", NAMES), [item("a")])
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "scores_per_case.csv",
        "scores_summary.json",
    ]


def test_a_second_run_starts_anew(tmp_path: Path) -> None:
    handler = ScoreTableHandler(tmp_path, NAMES)
    evaluate(handler, [item("a"), item("b")])
    evaluate(handler, [item("a")])
    assert {row["case"] for row in read_table(tmp_path)} == {"a"}


def test_a_baseline_is_compared_case_by_case(tmp_path: Path) -> None:
    baseline = tmp_path / "other.json"
    baseline.write_text(
        json.dumps({"a": {"anterior": 0.7, "posterior": 0.7}, "b": {"anterior": 0.8, "posterior": 0.8}})
    )
    evaluate(ScoreTableHandler(tmp_path, NAMES, baseline=baseline), [item("a"), item("b")])
    difference = json.loads((tmp_path / "scores_summary.json").read_text())["baseline_difference"]
    assert difference["mean"] == pytest.approx(0.05)
    assert (difference["low"], difference["high"]) == (pytest.approx(0.0), pytest.approx(0.1))


def test_a_case_that_the_baseline_lacks_is_named_before_the_end(tmp_path: Path) -> None:
    baseline = tmp_path / "other.json"
    baseline.write_text(json.dumps({"a": {"anterior": 0.7, "posterior": 0.7}}))
    with pytest.raises(DataError, match="got none named b"):
        evaluate(ScoreTableHandler(tmp_path, NAMES, baseline=baseline), [item("b")])


def test_a_class_that_is_not_contoured_is_not_scored(tmp_path: Path) -> None:
    include = {"a": ["anterior"], "b": ["anterior", "posterior"]}
    evaluate(ScoreTableHandler(tmp_path, NAMES, include=include), [item("a"), item("b")])
    assert [(row["case"], row["class"]) for row in read_table(tmp_path)] == [
        ("a", "anterior"),
        ("b", "anterior"),
        ("b", "posterior"),
    ]


def test_include_must_hold_every_case_and_known_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="include must hold every case, got none named b"):
        evaluate(ScoreTableHandler(tmp_path, NAMES, include={"a": ["anterior"]}), [item("b")])
    with pytest.raises(UsageError, match="got tail for case a"):
        ScoreTableHandler(tmp_path, NAMES, include={"a": ["tail"]})


def test_an_undefined_score_is_an_empty_cell(tmp_path: Path) -> None:
    evaluate(ScoreTableHandler(tmp_path, {**NAMES, 3: "tail"}), [item("a")])
    tail = read_table(tmp_path)[-1]
    assert (tail["class"], tail["dice"], tail["hd95_mm"], tail["volume_ml_pred"]) == ("tail", "", "", "0")


def run_handler(handler: ScoreTableHandler, output: list[dict[str, Any]]) -> None:
    """Give the handler a batch without MONAI's engine in between, for input that MONAI would never make."""
    state = type("State", (), {"output": output, "batch": [{} for _ in output]})
    handler._score_batch(type("Engine", (), {"state": state}))


def scored(case: str = "a", **changes: Any) -> dict[str, Any]:
    label = MetaTensor(labelmap(), affine=AFFINE)
    return {"case": case, "label": label, "pred": label.clone(), **changes}


def test_a_prediction_of_another_shape_is_refused_with_the_case(tmp_path: Path) -> None:
    pred = MetaTensor(labelmap()[..., 1:], affine=AFFINE)
    message = r"case a: pred must lie on the grid of label, got shape \(16, 10, 7\) against \(16, 10, 8\)"
    with pytest.raises(GeometryError, match=message):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(pred=pred)])


def test_a_prediction_on_another_grid_is_refused(tmp_path: Path) -> None:
    pred = MetaTensor(labelmap(), affine=torch.diag(torch.tensor([2.0, -1.0, 1.0, 1.0])))
    with pytest.raises(GeometryError, match="pred must lie on the grid of label, got axis codes RPS against LPS"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(pred=pred)])


def test_an_unknown_label_is_refused_with_the_case(tmp_path: Path) -> None:
    pred = MetaTensor(labelmap() * 4, affine=AFFINE)
    with pytest.raises(DataError, match=r"case a: pred must hold only 0 and the named labels \[1, 2\], got \[8\]"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(pred=pred)])


@pytest.mark.parametrize("value", [0.5, math.nan])
def test_fractions_and_nan_are_refused(tmp_path: Path, value: float) -> None:
    pred = MetaTensor(labelmap(), affine=AFFINE)
    pred[0, 0, 0, 0] = value
    with pytest.raises(DataError, match="case a: pred must hold whole label values"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(pred=pred)])


def test_one_hot_channels_are_refused(tmp_path: Path) -> None:
    pred = MetaTensor(labelmap().expand(3, -1, -1, -1), affine=AFFINE)
    with pytest.raises(GeometryError, match=r"pred must have shape 1 H W D, got \(3, 16, 10, 8\)"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(pred=pred)])


def test_a_tensor_without_an_affine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label must be a MetaTensor, got Tensor"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(label=labelmap())])
    with pytest.raises(DataError, match="pred must be a MetaTensor, got NoneType"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(pred=None)])


def test_a_case_without_name_or_given_twice_is_refused(tmp_path: Path) -> None:
    nameless = scored()
    del nameless["case"]
    with pytest.raises(DataError, match="under the key case, got none"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [nameless])
    with pytest.raises(DataError, match="case must come once, got a twice"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), [scored(), scored()])


def test_a_batch_that_was_not_decollated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="must be a list of items, got dict"):
        run_handler(ScoreTableHandler(tmp_path, NAMES), {"pred": 1})  # type: ignore[arg-type]


def test_class_names_without_a_foreground_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class_names must name a foreground class"):
        ScoreTableHandler(tmp_path, {"0": "background"})


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="output_dir must be a folder that can be written"):
        evaluate(ScoreTableHandler(tmp_path / "file", NAMES), [item("a")])


def evaluate_rank(rank: int, world_size: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size
    )
    # Three cases for two ranks: the sampler gives "a" to both.
    cases = [["a", "b"], ["c", "a"]][rank]
    evaluator = evaluate(ScoreTableHandler(Path(folder) / f"scores_{rank}", NAMES), [item(case) for case in cases])
    np.testing.assert_allclose(evaluator.state.metrics["mean_dice"], 0.8)
    torch.distributed.destroy_process_group()


def test_two_processes_write_one_table_with_each_case_once(tmp_path: Path) -> None:
    mp.spawn(evaluate_rank, args=(2, str(tmp_path)), nprocs=2)
    assert [row["case"] for row in read_table(tmp_path / "scores_0")] == ["a", "a", "b", "b", "c", "c"]
    assert not (tmp_path / "scores_1").exists()


def test_a_bundle_config_makes_the_handler(tmp_path: Path) -> None:
    parser = ConfigParser(
        {
            "class_names": {"0": "background", "1": "anterior", "2": "posterior"},
            "handler": {
                "_target_": "vol3d.handlers.score_table.ScoreTableHandler",
                "output_dir": str(tmp_path),
                "class_names": "@class_names",
                "baseline": None,
            },
        }
    )
    handler = parser.get_parsed_content("handler")
    assert handler.class_names == {1: "anterior", 2: "posterior"}
