"""From what a user names on the command line to the cases that are in it.

A *case* is one scan of one patient. Rules, for each input in turn:

* a volume file is a case, named by the file without its suffix;
* a folder with DICOM files is one case, named by the folder; so is a folder whose subfolders hold DICOM files of one
  study (series in folders of their own);
* any other folder holds cases: one for each volume file in it, and what its subfolders hold by the same rules, one
  level deep. A subfolder with a single volume file gives its name to the case (``patient_7/image.nii.gz``).

Hidden files (``._scan.nii.gz`` of a Mac) are never cases. No pixel and no torch is loaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vol3d.data.dicom_slice import first_study_uid
from vol3d.data.header_guard import check_input_file, folder_entries
from vol3d.data.volume_suffix import VOLUME_SUFFIXES, volume_stem, volume_suffix
from vol3d.errors import DataError, UsageError, VolumeReadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Case:
    """One scan to be read.

    Args:
        name: Name for outputs; unique among the cases found together.
        path: Volume file, or folder of a DICOM series.
        kind: ``file`` or ``dicom``.
    """

    name: str
    path: Path
    kind: Literal["file", "dicom"]


def find_cases(inputs: Sequence[str | Path]) -> list[Case]:
    """Return the cases of all inputs, in the order of the inputs and sorted within a folder.

    Args:
        inputs: Files and folders as the user gave them.

    Raises:
        UsageError: If an input does not exist, or no input is given.
        DataError: If a folder holds no case, a file has no volume suffix, or two cases have one name.
    """
    if not inputs:
        raise UsageError("inputs must name at least one file or folder, got none; give a volume or a folder")
    cases = [case for path in inputs for case in _cases_of(Path(path))]
    return _with_unique_names(cases)


def _cases_of(path: Path) -> list[Case]:
    if not path.is_dir():
        check_input_file(path)
        if volume_suffix(path) is None:
            raise VolumeReadError(
                f"{path.name}: suffix must be one of {', '.join(VOLUME_SUFFIXES)}, got {path.suffix!r}; "
                "convert the file, or give the folder of a DICOM series"
            )
        return [Case(volume_stem(path), path, "file")]
    name = path.resolve().name
    own = _dicom_or_files(path, name)
    if own and own[0].kind == "dicom":
        return own
    nested = [case for child in _subfolders(path) for case in _nested_cases(child)]
    cases = own + nested
    if not cases:
        raise DataError(
            f"{name}: folder must hold volumes ({', '.join(VOLUME_SUFFIXES)}) or DICOM slices, got none; check the path"
        )
    return cases


def _nested_cases(folder: Path) -> list[Case]:
    cases = _dicom_or_files(folder, folder.name)
    if len(cases) == 1:
        return [Case(folder.name, cases[0].path, cases[0].kind)]
    return cases


def _dicom_or_files(folder: Path, name: str) -> list[Case]:
    """Return the folder as one DICOM case, or its volume files, or nothing."""
    files = _volume_files(folder)
    is_dicom = first_study_uid(folder) is not None
    if is_dicom and files:
        raise DataError(
            f"{name}: folder must hold volume files or DICOM slices, got both (for example {files[0].name}); "
            "name the one that is meant"
        )
    if files:
        return [Case(volume_stem(file), file, "file") for file in files]
    return [Case(name, folder, "dicom")] if is_dicom or _is_one_study(_subfolders(folder)) else []


def _is_one_study(folders: list[Path]) -> bool:
    """Tell whether folders hold the series of one study and nothing else."""
    studies = {first_study_uid(folder) for folder in folders} - {None}
    return len(studies) == 1 and not any(_volume_files(folder) for folder in folders)


def _volume_files(folder: Path) -> list[Path]:
    return [file for file in folder_entries(folder) if file.is_file() and volume_suffix(file) is not None]


def _subfolders(folder: Path) -> list[Path]:
    return [child for child in folder_entries(folder) if child.is_dir()]


def _with_unique_names(cases: Iterable[Case]) -> list[Case]:
    found: dict[str, Case] = {}
    for case in cases:
        # Names become file names, and some file systems ignore upper and lower case.
        other = found.setdefault(case.name.casefold(), case)
        if other is not case:
            raise DataError(
                f"case names must be unique, got {case.name!r} for {other.path} and {case.path}; rename one of them"
            )
    return list(found.values())
