"""Attacks by configs: expressions, components, arguments, macros, and YAML and JSON that is not plain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from attack_registry import Attack, add
from sharing_bundles import METADATA, make_bundle

if TYPE_CHECKING:
    from pathlib import Path

EXPRESSIONS = {
    "import_builtin": "__import__('os').system('id')",
    "torch_os": "torch.os.system('id')",
    "run_cmd": "monai.utils.run_cmd(['id'])",
    "optional_import": "monai.utils.optional_import('os')[0].system('id')",
    "subclasses": "().__class__.__base__.__subclasses__()",
    "lambda": "(lambda: 1)()",
    "comprehension": "[x for x in (1, 2)]",
    "generator": "any(x for x in (1, 2))",
    "open": "open('canary', 'w')",
    "eval": "eval('1')",
    "exec": "exec('1')",
    "compile": "compile('1', 'a', 'eval')",
    "getattr": "getattr(torch, 'o' + 's')",
    "globals": "globals()",
    "dunder_reference": "@network.__class__",
    "module_reference": "@imports::0.os.system('id')",
    "attribute_step": "@network.forward",
    "percent_format": "'%s' % @network",
    "format_method": "'{0.a}'.format(@network)",
    "f_string": "f'{@network}'",
    "power": "9 ** 9 ** 9",
    "shift": "1 << 99999999",
    "walrus": "(a := 1)",
    "starred": "print(*@network)",
    "kwargs": "dict(**@network)",
    "torch_load": "torch.load('models/model.pt', weights_only=False)",
    "hub": "torch.hub.load('a/b', 'c')",
    "jit": "torch.jit.load('a.ts')",
    "numpy_load": "np.load('a.npy', allow_pickle=True)",
    "numpy_save": "np.savetxt('canary', [1])",
    "module_value": "torch.utils",
    "bare_module": "monai",
    "numpy_step": "np.f2py.os",
    "type_call": "type('a', (), {})",
    "function_globals": "monai.data.utils.no_collation.__globals__['os']",
    "function_self": "torch.sigmoid.__self__",
    "dtype_class": "torch.float32.__class__",
    "reference_call": "@network('x')",
    "call_of_result": "@network.to('cpu')('x')",
    "two_statements": "import vol3d; import os",
    "import_os": "import os",
    "import_as": "import vol3d as torch",
    "from_import": "from os import system",
    "quote_break": '\'@network + __import__("os").system("id") + \'',
    "comment": "1 # @network",
    "absolute_path": "@network if 1 else '/etc/passwd'",
    "joined_path": "@network + '/etc'",
    "parent_path": "@bundle_root + '/../../x'",
    "url": "dict(a='tcp://198.51.100.1:9')",
    "vol3d_step": "vol3d.data.atomic_write.os.system('id')",
    "vol3d_cli": "vol3d.cli.main.main()",
    "monai_bundle": "monai.bundle.run(config_file='x')",
    "dict_argument": "{'allow_pickle': True}",
    "print": "print(1)",
    "breakpoint": "breakpoint()",
    "await": "await @network",
    "bytes": "b'a'",
    "deep": "(" * 400 + "1" + ")" * 400,
    "long": "1 + " * 2000 + "1",
}

CONFIGS: dict[str, dict[str, Any]] = {
    "target_os": {"a": {"_target_": "os.system", "command": "id"}},
    "target_torch_os": {"a": {"_target_": "torch.os.system"}},
    "target_bare_run_cmd": {"a": {"_target_": "run_cmd", "cmd_list": ["id"]}},
    "target_numpy": {"a": {"_target_": "numpy.savetxt", "fname": "canary", "X": [1]}},
    "target_builtin": {"a": {"_target_": "builtins.eval"}},
    "target_lambda": {"a": {"_target_": "Lambdad", "keys": "image", "func": "$torch.sigmoid"}},
    "target_download": {"a": {"_target_": "download_url"}},
    "target_mlflow": {"a": {"_target_": "MLFlowHandler", "tracking_uri": "x"}},
    "target_workflow": {"a": {"_target_": "ConfigWorkflow", "config_file": "x"}},
    "target_logging": {"a": {"_target_": "logging.config.fileConfig"}},
    "target_partial": {"a": {"_target_": "functools.partial"}},
    "target_expression": {"a": {"_target_": "$torch.sigmoid"}},
    "target_reference": {"a": {"_target_": "@network"}},
    "target_macro": {"a": {"_target_": "%network"}},
    "target_number": {"a": {"_target_": 3}},
    "target_overlay": {"evaluator::_target_": "os.system"},
    "target_overlay_hash": {"evaluator#_target_": "os.system"},
    "target_vol3d_module": {"a": {"_target_": "vol3d.sharing.confine.confine"}},
    "target_nested_module": {"a": {"_target_": "monai.transforms.io.array.os.system"}},
    "mode_debug": {"a": {"_target_": "Compose", "_mode_": "debug"}},
    "debug_flag": {"a": {"_target_": "Compose", "_debug_": True}},
    "reader_open": {"a": {"_target_": "LoadImaged", "keys": "image", "reader": "open", "file": "x", "mode": "w"}},
    "reader_dotted": {"a": {"_target_": "LoadImaged", "keys": "image", "reader": "os.system"}},
    "reader_by_reference": {"volume_reader": "open", "a": {"reader": "@volume_reader"}},
    "writer": {"a": {"_target_": "SaveImage", "writer": "subprocess.Popen"}},
    "dotted_text": {"a": {"_target_": "UNet", "backbone": "os.system"}},
    "allow_pickle": {"a": {"allow_pickle": True}},
    "weights_only": {"a": {"weights_only": False}},
    "weights_only_computed": {"a": {"weights_only": "$not True"}},
    "pretrained": {"a": {"_target_": "DenseNet121", "pretrained": True}},
    "output_absolute": {"output_dir": "/etc"},
    "output_parent": {"output_dir": "../.."},
    "output_home": {"a": {"_target_": "SaveImaged", "keys": "pred", "output_dir": "~/x"}},
    "output_windows": {"output_dir": "C:\\Windows"},
    "output_url": {"a": {"save_dir": "s3://bucket"}},
    "output_pieces": {"dot": ".", "slash": "./", "a": {"output_ext": "$@dot + @slash"}},
    "output_joined": {"output_dir": "$@bundle_root + '/../..'"},
    "empty_root": {"bundle_root": "", "output_dir": "$@bundle_root + '/etc'"},
    "log_dir": {"a": {"_target_": "TensorBoardStatsHandler", "log_dir": "/var/log"}},
    "logging_file": {"logging_file": "configs/logging.conf"},
    "init_method": {"a": {"init_method": "env"}},
    "macro_absolute": {"a": "%/etc/passwd.json::a"},
    "macro_parent": {"a": "%../../x.yaml::a"},
    "macro_other_file": {"a": "%models/x.json::a"},
    "key_with_code": {"a'] or os.system('id') or b['": 1},
    "dunder_text": {"a": "__builtins__"},
    "description": {"a": {"_target_": "Compose", "_desc_": "$__import__('os').system('id')"}},
    "absolute_data": {"dataset_dir": "/data/someone"},
}


def with_config(extra: dict[str, Any]) -> Attack:
    def make(folder: Path) -> list[str]:
        root = make_bundle(folder, weights_seed=None)
        (root / "configs/train.yaml").write_text(yaml.safe_dump(extra))
        return ["check", str(root)]

    return make


for name, expression in EXPRESSIONS.items():
    add(f"expression_{name}", "audit.", with_config({"a": f"${expression}"}))
for name, config in CONFIGS.items():
    add(f"config_{name}", "audit.", with_config(config))


def with_file(path: str, content: bytes) -> Attack:
    def make(folder: Path) -> list[str]:
        root = make_bundle(folder, weights_seed=None)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        return ["check", str(root)]

    return make


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join('*' + chr(97 + n) for _ in range(9))}]\n" for n in range(9)
)
for name, code, text in (
    ("alias_bomb", "document.alias", BOMB),
    ("merge_key", "document.", "a: {b: 1}\nc:\n  <<: {d: 1}\n"),
    ("duplicate_key", "document.duplicate", "a: 1\na: 2\n"),
    ("python_tag", "document.tag", "a: !!python/object/apply:os.system ['id']\n"),
    ("date", "document.type", "a: 2024-01-01\n"),
    ("deep", "document.depth", "a: " + "[" * 5000 + "]" * 5000 + "\n"),
    ("large", "document.size", "a: 1\n" + "# " + "x" * 200_000 + "\n"),
    ("many", "document.size", "".join(f"k{n}: [1, 2, 3]\n" for n in range(20_000))),
    ("broken", "document.syntax", "a: [1\n"),
    ("list", "audit.shape", "- 1\n"),
):
    add(f"yaml_{name}", code, with_file("configs/train.yaml", text.encode()))
for name, code, content in (
    ("duplicate_key", "document.duplicate", b'{"a": 1, "a": 2}'),
    ("nan", "document.syntax", b'{"a": NaN}'),
    ("huge_number", "document.syntax", b'{"a": ' + b"9" * 10_000 + b"}"),
    ("deep", "document.depth", b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("not_utf8", "document.syntax", b'{"a": "\xff"}'),
    ("surrogate", "document.syntax", b'{"a": "\\ud800"}'),
):
    add(f"json_{name}", code, with_file("configs/train.json", content))


def with_metadata(**extra: Any) -> Attack:
    return with_file("configs/metadata.json", json.dumps(METADATA | extra).encode())


add("metadata_expression", "audit.metadata", with_metadata(task="$__import__('os').system('id')"))
add("metadata_reference", "audit.metadata", with_metadata(task="@network"))
add("metadata_target", "audit.metadata", with_metadata(x={"_target_": "os.system"}))
add("metadata_version", "metadata.version", with_metadata(version="../../1"))
add("metadata_no_use", "metadata.missing", with_metadata(intended_use=None))
