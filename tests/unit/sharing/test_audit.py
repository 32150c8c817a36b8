"""The audit lets through what bundles need, refuses the rest, and says where and why."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sharing_bundles import INFERENCE, make_bundle

from vol3d.sharing.audit import audit_bundle, audit_config
from vol3d.sharing.expressions import expression_problems
from vol3d.sharing.policy import definitions, load_policy
from vol3d.sharing.strict_documents import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

POLICY = load_policy()


@pytest.mark.parametrize(
    "text",
    [
        "@evaluator.run()",
        "@load_transforms + @device_transforms",
        "torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "@network.parameters()",
        "@bundle_root + '/models/model.pt'",
        "@max_epochs * len(@train::dataloader)",
        "monai.handlers.from_engine(['pred', 'label'], first=True)",
        "monai.utils.set_determinism(seed=@seed)",
        "vol3d.data.datalist.read_split(@dataset_dir, 'training')",
        "@rank > 0 and not @amp",
        "{'image': @image}",
        "@windows[0][-1]",
        "monai.utils.ForwardMode.TRAIN",
        "np.float32",
        "torch.Generator().manual_seed(@seed)",
        "import vol3d",
        "-1.5e-3 // 2 % 3",
        "@keys[1:]",
    ],
)
def test_expression_that_bundles_need_passes(text: str) -> None:
    assert expression_problems(text, POLICY) == []


def test_reference_in_text_is_judged_after_monai_has_replaced_it() -> None:
    # MONAI replaces @a inside the quotes too, which ends the text early and lets the rest run.
    (problem,) = expression_problems("'@a + print(1) + '", POLICY)
    assert problem[0] == "audit.expression"


@given(st.text(max_size=80) | st.text("@$()[]{}.:'\"\\ab1+*%#,=_ ", max_size=30))
def test_any_text_is_judged(text: str) -> None:
    expression_problems(text, POLICY)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["$@a + 1", "%a", "@a", "a.b"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8) | st.sampled_from(["_target_", "output_dir", "a::b"]), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@given(
    st.dictionaries(st.text(max_size=8), VALUES, max_size=3),
    st.sampled_from(["configs/x.yaml", "configs/metadata.json"]),
)
def test_any_config_is_judged_in_short_lines(config: dict[str, Any], where: str) -> None:
    assert all(len(f.line()) <= 200 and f.line().isprintable() for f in audit_config(config, where))


def test_odd_spelling_is_judged_without_a_warning() -> None:
    assert expression_problems("1or 2", POLICY) == []


@pytest.mark.parametrize("name", ["Compose", "monai.transforms.Compose", "monai.transforms.compose.Compose", "UNet"])
def test_component_is_allowed_by_every_name_that_leads_to_it(name: str) -> None:
    assert POLICY.allows_target(name)


@pytest.mark.parametrize(
    "name",
    ["monai.transforms.os", "monai.Compose", "monai.transforms.io.Compose", "torch.nn.Module", "Path", "vol3d.Compose"],
)
def test_name_that_its_package_does_not_define_is_refused(name: str) -> None:
    assert not POLICY.allows_target(name)


def test_name_with_two_definitions_needs_both_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(definitions("monai")) | {"UNet": ("monai.networks.nets.unet", "monai.apps.other")}
    monkeypatch.setattr("vol3d.sharing.policy.definitions", lambda _: found)
    assert not POLICY.allows_target("UNet")


def test_every_name_of_the_policy_exists_and_belongs_to_its_package() -> None:
    known = definitions("monai")
    for package, rule in POLICY.packages.items():
        if not package.startswith("monai") or not isinstance(rule["names"], list):
            continue
        for name in rule["names"]:
            assert any(module.startswith(package) for module in known.get(name, ())), f"{package}.{name}"


def test_every_exception_of_the_policy_exists() -> None:
    known = definitions("monai")
    for package, rule in POLICY.packages.items():
        for name in rule.get("except", ()):
            assert not package.startswith("monai") or name in known, f"{package}: {name}"


def test_every_full_name_of_the_policy_can_be_imported() -> None:
    for name in sorted(POLICY.targets | POLICY.calls | POLICY.values):
        parent, _, last = name.rpartition(".")
        if name.startswith("torch.amp.") or parent.split(".")[0] in ("torch", "numpy", "monai", "ignite"):
            found: Any = importlib.import_module(parent.split(".")[0])
            for step in parent.split(".")[1:]:
                found = getattr(found, step, None) or importlib.import_module(f"{found.__name__}.{step}")
            assert hasattr(found, last), name


def test_bundle_of_the_tests_passes(bundle: Path) -> None:
    assert audit_bundle(bundle) == []


def test_finding_names_file_key_rule_and_remedy(bundle: Path) -> None:
    config = bundle / "configs/inference.yaml"
    config.write_text(INFERENCE.replace("reader: NibabelReader", "reader: open"))
    (finding,) = audit_bundle(bundle)
    assert finding.where == "configs/inference.yaml: preprocessing::transforms::0::reader"
    assert finding.code == "audit.argument"
    assert "'open'" in finding.what
    assert "NibabelReader" in finding.instead


def test_every_finding_of_a_bundle_is_reported(tmp_path: Path) -> None:
    root = make_bundle(tmp_path, weights_seed=None)
    (root / "configs/train.yaml").write_text("a: $open('x')\nb: {_target_: os.system}\nc: /etc/x\n")
    assert [finding.code for finding in audit_bundle(root)] == ["audit.call", "audit.target", "audit.path"]


def test_macro_may_name_a_config_of_the_bundle(tmp_path: Path) -> None:
    root = make_bundle(tmp_path, weights_seed=None)
    (root / "configs/train.yaml").write_text("a: '%configs/inference.yaml::inferer'\nb: '%a'\n")
    assert audit_bundle(root) == []


@pytest.mark.parametrize("key", ["output_dir", "evaluator::postprocessing::output_dir", "+output_dir", "~output_dir"])
def test_overlay_key_is_judged_by_its_last_step(key: str) -> None:
    (finding,) = audit_config({key: "/etc"}, "configs/x.yaml")[:1]
    assert finding.code == "audit.path"


def test_shared_config_of_yaml_integers_as_keys_passes() -> None:
    assert audit_config(parse_yaml(b"class_names: {1: anterior, 2: posterior}", "x"), "configs/x.yaml") == []
