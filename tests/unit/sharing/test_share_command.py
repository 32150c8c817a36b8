"""``vol3d share`` from end to end, as a user types it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sharing_bundles import NAME, KeyPair, Site, add_script, make_bundle

from vol3d.cli import console, main


class Shell:
    """Runs ``vol3d share`` in this process and keeps what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.printed = ""

    def __call__(self, *arguments: object, exit_code: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        self.monkeypatch.setattr(console.out, "file", out)
        self.monkeypatch.setattr(console.err, "file", err)
        self.monkeypatch.setattr(sys, "argv", ["vol3d", "share", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main.main()
        assert (end.value.code or 0) == exit_code, err.getvalue()
        self.printed = out.getvalue()
        return self.printed if exit_code == 0 else err.getvalue()

    def json(self, *arguments: object) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(monkeypatch)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    folder = tmp_path / "remote"
    folder.mkdir()
    return folder


def publish(shell: Shell, tmp_path: Path, key: KeyPair, remote: Path, version: str) -> Path:
    root = make_bundle(tmp_path / version, version, weights_seed=None)
    packed = Path(shell.json("pack", root, "-o", tmp_path)["path"])
    shell("sign", packed, "--key", key.private)
    shell("push", packed, remote)
    return packed


def test_a_bundle_goes_from_site_to_site(shell: Shell, tmp_path: Path, key: KeyPair, site: Site, remote: Path) -> None:
    packed = publish(shell, tmp_path, key, remote, "1.0.0")
    verified = shell.json("verify", packed)
    assert (verified["signer"], verified["level"]) == ("site-0", "data-only")
    pulled = shell.json("pull", NAME, remote)
    assert pulled["lock_id"] == verified["lock_id"]
    assert shell.json("verify", NAME)["lock_id"] == verified["lock_id"]
    assert shell.json("list") == [{"name": NAME, "version": "1.0.0", "current": True, "path": pulled["path"]}]
    publish(shell, tmp_path, key, remote, "1.1.0")
    assert shell.json("list", "--remote", remote, "--name", NAME)["versions"] == ["1.0.0", "1.1.0"]
    shell("pull", NAME, remote)
    shell("use", f"{NAME}@1.0.0")
    shell("remove", f"{NAME}@1.1.0")
    assert shell.json("gc")["freed_bytes"] > 0
    shell("trust", "remove", "site-0")
    assert "signature.untrusted" in shell("verify", NAME, exit_code=3)


def test_trust_is_added_and_listed(shell: Shell, key: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOL3D_HOME", str(tmp_path / "new home"))
    shell("trust", "add", "hospital-a", key.public, "--bundles", "tiny_*", "--days", 30)
    (signer,) = shell.json("trust", "list")["signers"]
    assert (signer["name"], signer["kind"], signer["scripts"]) == ("hospital-a", "key", False)
    assert "hospital-a" in shell("trust", "list")


def test_own_code_is_approved_by_lock_id(shell: Shell, tmp_path: Path, key: KeyPair, site: Site) -> None:
    shell("trust", "remove", "site-0")
    shell("trust", "add", "coder", key.public, "--bundles", "tiny_*", "--scripts")
    root = make_bundle(tmp_path / "own", weights_seed=None)
    add_script(root)
    packed = shell.json("pack", root, "-o", tmp_path, "--level", "scripts")
    shell("sign", packed["path"], "--key", key.private)
    assert "level.approval" in shell("verify", packed["path"], "--level", "scripts", exit_code=3)
    shell("approve", packed["path"], "--lock-id", packed["lock_id"])
    assert "scripts" in shell("verify", packed["path"], "--level", "scripts")
    assert packed["lock_id"] in shell.json("trust", "list")["approvals"]


def test_check_explains_each_finding(shell: Shell, tmp_path: Path) -> None:
    root = make_bundle(tmp_path, weights_seed=None)
    (root / "configs/train.yaml").write_text("a: $open('x')\nb: /etc\n")
    line = shell("check", root, "--explain", exit_code=3)
    assert line.startswith("error: [audit.call] configs/train.yaml: a (+1 more)")
    assert shell.printed.splitlines() == [
        "[audit.call] configs/train.yaml: a",
        "    found:   the call of 'open'",
        "    instead: call a listed function (docs/sharing.md)",
        "[audit.path] configs/train.yaml: b",
        "    found:   an absolute path: '/etc'",
        "    instead: write a path inside the bundle; users pass theirs as options",
    ]


def test_diff_says_in_words_what_changed(shell: Shell, tmp_path: Path, key: KeyPair, remote: Path, site: Site) -> None:
    old = publish(shell, tmp_path, key, remote, "1.0.0")
    root = make_bundle(tmp_path / "new", "1.1.0", weights_seed=None)
    config = root / "configs/inference.yaml"
    config.write_text(config.read_text().replace("roi_size: [16, 16, 16]", "roi_size: [32, 32, 32]\n  overlap: 0.5"))
    (root / "docs/notes.md").write_text("# Notes\n")
    new = shell.json("pack", root, "-o", tmp_path)["path"]
    changes = shell.json("diff", old, new)["changes"]
    assert changes[0] == f"{NAME}@1.0.0 -> {NAME}@1.1.0"
    assert "  inferer::roi_size: [16, 16, 16] -> [32, 32, 32]" in changes
    assert "  inferer::overlap: added 0.5" in changes
    assert "  version: '1.0.0' -> '1.1.0'" in changes
    assert any(line.startswith("docs/notes.md: added (8 bytes)") for line in changes)
    assert shell.json("diff", old, old)["changes"][1:] == ["no difference"]


def test_probe_of_a_packed_bundle_gives_the_recorded_output(shell: Shell, weighted_archive: Path, site: Site) -> None:
    assert shell.json("verify", weighted_archive, "--probe")["probe"] == "bit-identical"


def test_packing_over_an_existing_file_is_refused(shell: Shell, tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "own", weights_seed=None)
    shell("pack", root, "-o", tmp_path)
    assert "output must be new" in shell("pack", root, "-o", tmp_path, exit_code=2)


def test_folder_that_does_not_exist_is_a_usage_error(shell: Shell, tmp_path: Path) -> None:
    assert "must be a known name or a bundle's folder" in shell("check", tmp_path / "no", exit_code=2)


def test_level_that_does_not_exist_is_a_usage_error(shell: Shell, light_archive: Path, site: Site) -> None:
    assert "level must be one of" in shell("verify", light_archive, "--level", "all", exit_code=2)


def test_gate_of_predict_needs_no_posix_module(tmp_path: Path) -> None:
    code = "import sys; sys.modules['fcntl'] = None; import vol3d.sharing.admit"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "arguments", [["check", "."], ["verify", "x"], ["pull", "x", "."], ["list"], ["trust", "list"]]
)
def test_command_without_weights_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from vol3d.cli import main; sys.argv = ['vol3d', 'share', *sys.argv[1:]]\n"
        "try: main.main()\n"
        "except SystemExit: pass\n"
        "sys.exit(99 if {'torch', 'monai'} & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={"VOL3D_HOME": str(tmp_path), "PATH": ""},
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0
