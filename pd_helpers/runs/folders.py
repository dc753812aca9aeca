"""Folders that hold runs: whether one can be written, what it holds, and whose it is at the moment.

A folder belongs to one process for as long as that process trains: two that wrote to the same folder would destroy each
other's files. The lock is the operating system's, so that it ends with the process, however the process ends.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pd_helpers.core.config import shown
from pd_helpers.core.machine.ranks import held_by_first

RUN, TENSORS, CHECKPOINT = "run.json", "tensors.safetensors", "checkpoint.safetensors"
PARTIAL, LOCK = ".partial-", ".lock"
"""What a process that was killed can leave: folders with files that were being written, and the file of its lock."""


def checked_path(folder: Any, argument: str = "folder") -> Path:
    """The absolute path that a folder's name means, with `~` and links followed; nothing needs to exist there.

    Raises TypeError for what is no path, and ValueError for a path that no file system takes.
    """
    if not isinstance(folder, str | os.PathLike) or isinstance(path := os.fspath(folder), bytes):
        raise TypeError(f"{argument} must be the path of a folder, but is {shown(folder)}; 'runs/1' works")
    if not path.strip():
        raise ValueError(f"{argument} is {path!r}, which names no folder; 'runs/1' works")
    try:
        resolved = Path(path).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(resolved)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{argument} is {shown(path)}, which cannot be a folder ({reason}); 'runs/1' works") from None
    return resolved


def check_new_folder(folder: str | os.PathLike, argument: str = "out") -> Path:
    """The absolute path of a folder to which a run can be written; ValueError says why it cannot be.

    A folder is new if it does not exist or holds nothing but what a process left that was killed before its first
    checkpoint. The check itself leaves nothing behind.
    """
    path = checked_path(folder, argument)
    if (path / LOCK).exists():
        with claimed(path):  # ValueError if the run that it belongs to is still being trained
            pass
    _check_content(path, str(folder), argument)
    return path


def _check_content(path: Path, shown: str, argument: str) -> None:
    another = f"{shown.rstrip('/.') or 'run'}-2"
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument} is {shown!r}, which is a file; a new folder such as {another!r} works")
    if has_checkpoint(path) and not is_finished(path):
        raise ValueError(
            f"{argument} is {shown!r}, which holds an unfinished run; {how_to_resume(shown)}, "
            f"and a new folder such as {another!r} takes a new run"
        )
    try:
        if path.is_dir() and not all(map(is_remnant, path.iterdir())):
            raise ValueError(f"{argument} is {shown!r}, which is not empty; a new folder such as {another!r} works")
        parent = next(p for p in (path, *path.parents) if p.exists())
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".write-test-"))
    except OSError as error:
        raise ValueError(
            f"{argument} is {shown!r}, which cannot be written ({error.strerror}); 'runs/1' works"
        ) from error


@contextmanager
def new_folder(folder: str | os.PathLike | None) -> Iterator[Path | None]:
    """Within the block, a new folder that belongs to this process; without a folder, None.

    Raises ValueError as `check_new_folder` does.
    """
    if folder is None:
        yield None
        return
    with claimed(check_new_folder(folder)) as path:
        _check_content(path, str(folder), "out")  # again, now that nobody else can write to it
        yield path


@contextmanager
def shared_folder(folder: str | os.PathLike | None) -> Iterator[Path | None]:
    """The same for a run of several processes: rank 0 holds the folder, and all of them know its path."""
    if folder is None:
        yield None
        return
    with held_by_first(lambda: new_folder(folder)):
        yield checked_path(folder, "out")


@contextmanager
def claimed(path: Path) -> Iterator[Path]:
    """Within the block the folder belongs to this process; folders that must be created for it go if they end empty.

    What a killed process left half-written is cleared away. Raises ValueError if the folder belongs to another
    process, or to another run of this one.
    """
    created = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(
            f"the folder {str(path)!r} belongs to a run that is being trained at this moment; wait for its end, stop "
            "it, or use another folder"
        ) from None
    except OSError as error:
        raise ValueError(
            f"the folder {str(path)!r} cannot be written ({error.strerror}); a copy of it elsewhere works"
        ) from error
    try:
        clear_remnants(path)
        yield path
    finally:
        with suppress(OSError):  # while the lock is held: whoever opened the file before tries again with a new one
            (path / LOCK).unlink()
        lock.release()
        with suppress(OSError):
            (path / LOCK).unlink(missing_ok=True)
            for folder in created:
                folder.rmdir()  # OSError unless it is empty


def clear_remnants(path: Path) -> None:
    """Remove what a killed process left half-written."""
    for remnant in path.glob(f"{PARTIAL}*"):
        if remnant.is_dir():
            shutil.rmtree(remnant, ignore_errors=True)
        else:
            remnant.unlink(missing_ok=True)


def is_remnant(path: Path) -> bool:
    """Whether this can be something that a killed process left half-written."""
    return path.name == LOCK or path.name.startswith(PARTIAL)


def is_finished(folder: str | os.PathLike) -> bool:
    """Whether the folder holds a finished run."""
    return (Path(folder) / RUN).exists()


def has_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether the folder holds a checkpoint."""
    return (Path(folder) / CHECKPOINT).is_file()


def how_to_resume(folder: str | os.PathLike, *, own_network: bool = False) -> str:
    """The part of a message that says how to continue the run in this folder."""
    own = ", target=network, data=data" if own_network else ""
    return f"pdh.resume({str(folder)!r}{own}) continues it"


def how_to_go_on(folder: Path | None, *, own_network: bool = False) -> str:
    """What a message says after a Ctrl-C."""
    if folder is not None and has_checkpoint(folder):
        return how_to_resume(folder, own_network=own_network)
    return "with out=, a new folder, a run leaves checkpoints, and pdh.resume continues it"
