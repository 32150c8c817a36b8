"""Confines this process with Landlock, so that a bundle's own code reaches only what its run needs.

Landlock is a Linux kernel feature that lets a process give up rights for good, for itself and all it starts. After
:func:`confine` the process can read system files, Python, vol3d, the bundle and the given inputs, write below the
given outputs and a temporary folder of its own, and open no TCP connection (kernel 6.7 or later). It cannot read the
rest of the home directory.

Limits: Landlock does not cover UDP, nor ``stat`` of any path, nor what the process has open already; the environment
variables that the process was started with stay readable.
Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vol3d.sharing.refusal import lacking

if TYPE_CHECKING:
    from collections.abc import Iterable

# The same numbers on every architecture that Linux has added since 2011, x86-64 among them.
_SYS_CREATE, _SYS_ADD, _SYS_RESTRICT = 444, 445, 446
_PR_SET_NO_NEW_PRIVS = 38
_RULE_PATH_BENEATH = 1
_CREATE_VERSION = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE
_READ = _EXECUTE | _READ_FILE | _READ_DIR
# Rights by ABI version: 13 at first, then refer (2), truncate (3) and ioctl on devices (5).
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_BASE_RIGHTS, _REFER = (1 << 13) - 1, 1 << 13
_NET_TCP = 0b11
_SCOPES = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def landlock_version() -> int:
    """Return the kernel's Landlock ABI version, 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_SYS_CREATE, None, ctypes.c_size_t(0), _CREATE_VERSION))


def confine(read: Iterable[Path], write: Iterable[Path]) -> int:
    """Confine this process for good; returns the ABI version that did it.

    Args:
        read: Files and folders that the run reads, beside system files and Python's own.
        write: Folders that the run writes below; they have to exist.

    Raises:
        RequirementError: If the kernel has no Landlock or refuses it, or other threads run already: they would stay
            free.
    """
    version = landlock_version()
    if version < 1:
        raise lacking("confine.landlock", "kernel must have Landlock, got none; pass --unconfined if you accept that")
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise lacking("confine.threads", "process must be confined before it starts threads, got some; report it")
    handled = _handled_rights(version)
    rules = _Ruleset(handled, _NET_TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _checked(_syscall(_SYS_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), 0))
    try:
        for path in [*_system_paths(), *read]:
            _allow(ruleset, path, _READ & handled)
        for path in [*_devices(), _private_temporary_folder(), *write]:
            _allow(ruleset, path, handled)
        _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(_syscall(_SYS_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)
    return version


def _handled_rights(version: int) -> int:
    rights = _BASE_RIGHTS
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if version >= since else 0
    return rights


def _system_paths() -> list[Path]:
    python = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values()}
    system = {"/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/dev/zero", "/dev/urandom"}
    return [Path(path) for path in sorted(python | system | {str(Path(__file__).parents[2])})]


def _devices() -> list[Path]:
    # torch's workers share memory through /dev/shm; the others are graphics cards.
    names = ("null", "shm", "dri", "kfd")
    return [Path("/dev", name) for name in names] + sorted(Path("/dev").glob("nvidia*"))


def _private_temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="vol3d-")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    if not path.exists():
        return
    if not path.is_dir():
        rights &= _FILE_RIGHTS | _TRUNCATE | _IOCTL_DEV
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights, handle)
        _checked(_syscall(_SYS_ADD, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(handle)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    return int(_libc().syscall(number, *arguments))


def _checked(result: int) -> int:
    if result < 0:
        reason = os.strerror(ctypes.get_errno())
        raise lacking("confine.landlock", f"kernel must accept Landlock rules, got {reason}; see --unconfined")
    return result
