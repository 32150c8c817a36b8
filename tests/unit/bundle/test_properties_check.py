"""Configs must have the keys of MONAI's workflows, found without building anything."""

from __future__ import annotations

from typing import Any

from vol3d.bundle.properties_check import check_properties


def test_a_correct_bundle_has_no_finding(maker: Any) -> None:
    assert check_properties(maker.layout) == []


def test_a_missing_key_is_named_with_its_job(maker: Any) -> None:
    maker.config("train", {"train": {"inferer": "@inferer", "trainer": {"max_epochs": 1}}})
    assert check_properties(maker.layout) == [
        "configs of train must define train::dataset (train_dataset), got no such key; add it"
    ]


def test_a_piece_written_in_place_is_found_where_monai_would_crash(maker: Any) -> None:
    (finding, *_) = check_properties(maker.inference(evaluator={"_target_": "SupervisedEvaluator", "val_handlers": []}))
    assert "evaluator::val_handlers in the configs of inference must be '@handlers', got the piece itself" in finding


def test_a_piece_under_another_key_is_found_and_an_expression_is_not(maker: Any) -> None:
    maker.inference(evaluator={"_target_": "SupervisedEvaluator", "val_handlers": "@my_handlers"})
    assert "must be '@handlers', got @my_handlers" in check_properties(maker.layout)[0]
    maker.inference(evaluator={"_target_": "SupervisedEvaluator", "val_handlers": "$@my_handlers + []"})
    assert check_properties(maker.layout) == []


def test_a_missing_config_is_a_finding_but_for_the_optional_one(maker: Any) -> None:
    (maker.layout.root / "configs" / "evaluate.yaml").unlink()
    (finding,) = check_properties(maker.layout)
    assert "configs/evaluate.yaml" in finding
