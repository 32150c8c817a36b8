"""Fuzz the readers of vol3d.sharing with mutated and made-up input: nightly, 10 minutes.

    python scripts/fuzz_sharing.py --minutes 10 --seed 0

Held for every input: a refusal or an answer, nothing else is raised; at most 2 s; no changed byte of an archive passes;
a lock that is accepted is spelled as vol3d spells it; an expression that is accepted names nothing beyond the policy,
as a second, independent reading of it finds. Prints how many inputs each target had; a violation ends the run with the
input's hexadecimal digits, from which a test can be made.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vol3d.errors import RefusedError
from vol3d.sharing.archive import Head, verify_archive, write_archive
from vol3d.sharing.audit import audit_config
from vol3d.sharing.expressions import expression_problems
from vol3d.sharing.lock import Lock, LockedFile, parse_lock
from vol3d.sharing.policy import load_policy
from vol3d.sharing.store import hash_file
from vol3d.sharing.strict_documents import parse_json, parse_yaml
from vol3d.sharing.weights import check_checkpoint, check_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_SECONDS = 2.0
POLICY = load_policy()
TOKENS = [
    *"()[]{},.:+-*/%@$#'\"\\=<>!&|^~;\n\t 019",
    *("a", "b", "@a", "@a::b", "@bundle_root", "$", "__class__", "_", "os", "system", "torch", "monai", "np", "vol3d"),
    *("lambda", "for", "in", "if", "else", "not", "and", "import", "await", "yield", "None", "True", "1e9", "0x1f"),
    *("len", "open", "eval", "getattr", "print", "dict", "torch.device", "torch.hub.load", "monai.utils.run_cmd"),
    *(
        "run",
        "to",
        "parameters",
        "format",
        "'/etc'",
        "'..'",
        "allow_pickle=True",
        "reader='open'",
        ":=",
        "**",
        "//",
        "é",
    ),
]
FORBIDDEN_CALLS = {
    "open",
    "eval",
    "exec",
    "getattr",
    "print",
    "compile",
    "__import__",
    "load",
    "system",
    "run_cmd",
    "format",
}


class Violation(Exception):  # noqa: N818 - what the fuzzer looks for, not an error of the program
    """A law was broken."""


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change, cut, insert or repeat some bytes."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(result) + 1)
        length = rng.choice((1, 1, 1, 2, 8, 64, 512))
        kind = rng.randrange(5)
        if kind == 0 and position < len(result):
            result[position] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[position : position + length] = rng.randbytes(length)
        elif kind == 2:
            del result[position : position + length]
        elif kind == 3:
            result[position:position] = result[position : position + length] or b"0"
        else:
            result[position:position] = rng.choice((b"\0", b'"', b"{", b"-1", b"1e999", b"&a", b"*a", b"!!x "))
    return bytes(result)


def make_archive(folder: Path) -> bytes:
    """Return a small sound archive."""
    contents = {"LICENSE": b"x\n", "configs/metadata.json": b"{}", "docs/README.md": b"# x\n"}
    kinds = {"LICENSE": "licence", "configs/metadata.json": "metadata", "docs/README.md": "card"}
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    files = tuple(LockedFile(path, *hash_file(folder / path), kinds[path]) for path in sorted(kinds))
    lock = Lock("fuzz", "1.0.0", files, {"monai": "1.6.1"}, "x", "x", {"source": "x"}, {}, {"seed": 0})
    write_archive(folder / "a.v3b", Head(lock, lock.to_bytes(), None), lambda file: (folder / file.path).open("rb"))
    return (folder / "a.v3b").read_bytes()


def accepted(action: Callable[[], object]) -> bool:
    """Tell whether an action ends; False if it refuses."""
    try:
        action()
    except RefusedError as error:
        if len(str(error)) > 200 or not str(error).isprintable():
            raise Violation(f"refusal is not one short line: {error!r}") from error
        return False
    return True


class Fuzzer:
    """Makes inputs and judges what the readers do with them.

    Args:
        folder: An empty folder to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "input"
        self.archive = make_archive(folder)
        self.lock = self.archive[512 : 512 + int(self.archive[124:135], 8)]
        header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
        self.safetensors = struct.pack("<Q", len(header)) + header + bytes(4)
        self.yaml = b"a: {_target_: Compose, b: [1, '$@c + 1']}\nd: '%a'\n"
        self.targets: dict[str, tuple[Callable[[random.Random], bytes], Callable[[bytes], None]]] = {
            "archive": (lambda rng: mutate(rng, self.archive), self.judge_archive),
            "lock": (lambda rng: mutate(rng, self.lock), self.judge_lock),
            "document": (lambda rng: mutate(rng, rng.choice((self.yaml, self.lock))), self.judge_document),
            "weights": (lambda rng: mutate(rng, self.safetensors), self.judge_weights),
            "expression": (lambda rng: "".join(rng.choices(TOKENS, k=rng.randint(1, 14))).encode(), judge_expression),
        }

    def judge_archive(self, data: bytes) -> None:
        """Only the archive itself may pass."""
        self.path.write_bytes(data)
        if accepted(lambda: verify_archive(self.path)) and data != self.archive:
            raise Violation("a changed archive passed")

    def judge_lock(self, data: bytes) -> None:
        """Only the lock itself may pass."""
        if accepted(lambda: parse_lock(data)) and data != self.lock:
            raise Violation("a changed lock passed")

    def judge_document(self, data: bytes) -> None:
        """Anything is read or refused."""
        accepted(lambda: audit_config(parse_yaml(data, "x"), "configs/x.yaml"))
        accepted(lambda: audit_config(parse_json(data, "x"), "configs/x.json"))

    def judge_weights(self, data: bytes) -> None:
        """Anything is read or refused."""
        self.path.write_bytes(data)
        accepted(lambda: check_safetensors(self.path, "x"))
        accepted(lambda: check_checkpoint(self.path, "x"))


def judge_expression(data: bytes) -> None:
    """Read an accepted expression once more, as coarsely as possible."""
    text = data.decode()
    if expression_problems(text, POLICY) or text.strip().startswith("import "):
        return
    # MONAI looks the name of a reference up in the config, whatever it is.
    for node in ast.walk(ast.parse(re.sub(r"@\w*(::\w*)*", "reference", text.strip()), mode="eval")):
        name = getattr(node, "id", None) or getattr(node, "attr", "")
        if "__" in name or name in FORBIDDEN_CALLS:
            raise Violation(f"an expression with {name} passed")
        if isinstance(node, ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.Await | ast.Yield | ast.NamedExpr):
            raise Violation(f"an expression with {type(node).__name__} passed")


def main() -> None:
    """Fuzz until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)  # noqa: S311 - inputs of a fuzzer are to be repeatable
    end = time.monotonic() + arguments.minutes * 60
    with tempfile.TemporaryDirectory() as temporary:
        fuzzer = Fuzzer(Path(temporary))
        counts = dict.fromkeys(fuzzer.targets, 0)
        while time.monotonic() < end:
            for name, (make, judge) in fuzzer.targets.items():
                data = make(rng)
                start = time.perf_counter()
                try:
                    judge(data)
                except Exception:
                    print(f"{name}: {data.hex()}", file=sys.stderr)
                    raise
                if time.perf_counter() - start > MAX_SECONDS:
                    sys.exit(f"{name}: more than {MAX_SECONDS} s for {data.hex()}")
                counts[name] += 1
    print(", ".join(f"{name} {count}" for name, count in counts.items()) + ": no violation")


if __name__ == "__main__":
    main()
