"""Folders that hold runs: whenever a process or a disk fails, every file in them is either complete or absent.

    a finished run      tensors.safetensors, then run.json, which holds the other file's checksum
    an unfinished one   checkpoint.safetensors, with JSON facts and a checksum in the file's metadata

A file is written elsewhere in the folder, flushed to the disk, and only then renamed. No file is a pickle.
"""

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save
from torch import Tensor

from pd_helpers.runs.former import present_facts, present_tensors

FORMAT, FORMER_FORMAT = "pd_helpers run 2", "pd_helpers run 1"
RUN, TENSORS, CHECKPOINT = "run.json", "tensors.safetensors", "checkpoint.safetensors"
CHECKPOINT_EVERY = 5.0
"""Smallest number of seconds between two checkpoints."""
CHECKPOINT_SHARE = 0.05
"""Largest share of the time that is spent on writing checkpoints; where they take long, they are written less often."""

Tensors = dict[str, Tensor]
"""Name → tensor."""
Facts = dict[str, Any]
"""Name → any value that JSON can hold."""


def check_new_folder(folder: str | os.PathLike) -> Path:
    """The absolute path of a folder to which a run can be written; ValueError says why it cannot be.

    The check leaves nothing behind.
    """
    path = Path(folder).resolve()
    another = f"{str(folder).rstrip('/.') or 'run'}-2"
    if path.exists() and not path.is_dir():
        raise ValueError(f"out is {str(folder)!r}, which is a file; a new folder such as {another!r} works")
    if (path / CHECKPOINT).is_file() and not (path / RUN).is_file():
        raise ValueError(
            f"out is {str(folder)!r}, which holds an unfinished run; {how_to_resume(folder)}, "
            f"and a new folder such as {another!r} takes a new run"
        )
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"out is {str(folder)!r}, which is not empty; a new folder such as {another!r} works")
    parent = next(p for p in (path, *path.parents) if p.exists())
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".write-test-"))
    except OSError as error:
        raise ValueError(f"out is {str(folder)!r}, which cannot be written ({error.strerror}); runs/1 works") from error
    return path


def how_to_resume(folder: str | os.PathLike) -> str:
    """The part of an error message that says how to continue the run in this folder."""
    return f"pdh.resume({str(folder)!r}) continues it"


def is_finished(folder: str | os.PathLike) -> bool:
    """Whether the folder holds a finished run."""
    return (Path(folder) / RUN).exists()


def has_checkpoint(folder: str | os.PathLike) -> bool:
    """Whether the folder holds a checkpoint."""
    return (Path(folder) / CHECKPOINT).is_file()


def write_run(folder: Path, tensors: Tensors, facts: Facts, format: str = FORMAT) -> None:
    """Write a finished run, or any tensors with JSON facts. After an OSError there is no part of it."""
    with _partial(folder) as partial:
        write_file(partial / TENSORS, save(tensors))
        facts = {"format": format, **facts, "sha256": _sha256(partial / TENSORS)}
        write_file(partial / RUN, (json.dumps(facts, indent=1) + "\n").encode())
        for name in (TENSORS, RUN):
            os.replace(partial / name, folder / name)


def read_facts(folder: Path, format: str = FORMAT) -> Facts:
    """The contents of a finished run's `run.json`; raises ValueError, which says what the folder holds, without one."""
    if has_checkpoint(folder) and not is_finished(folder):
        raise ValueError(f"the run in {str(folder)!r} is not finished; {how_to_resume(folder)}")
    try:
        facts = json.loads((folder / RUN).read_text())
    except (OSError, ValueError, RecursionError) as error:
        problem = "does not exist" if not folder.exists() else f"holds no readable {RUN}"
        raise ValueError(
            f"{str(folder)!r} is not a run: it {problem}; a folder written by Run.save or --out is"
        ) from error
    stored_format = facts.get("format") if isinstance(facts, dict) else None
    if format == FORMAT and stored_format == FORMER_FORMAT:
        return present_facts(facts)
    if stored_format != format:
        raise ValueError(f"{str(folder)!r} is not a run: its format is {stored_format!r}, not {format!r}")
    return facts


def read_run(folder: Path, format: str = FORMAT) -> tuple[Tensors, Facts]:
    """Read a finished run; raises ValueError if the folder is not a run, or is damaged."""
    facts = read_facts(folder, format)
    if not (folder / TENSORS).is_file() or _sha256(folder / TENSORS) != facts.get("sha256"):
        raise ValueError(f"the run in {str(folder)!r} is damaged: {TENSORS} is missing or cut; run it again")
    try:
        return load_file(folder / TENSORS), facts
    except SafetensorError as error:
        raise ValueError(f"the run in {str(folder)!r} is damaged: {TENSORS} holds no tensors ({error})") from error


def factors_to_store(layer: str, U: Tensor, V: Tensor) -> Tensors:
    """U (C, d_out, R) and V (C, R, d_in) under the names by which they are stored.

    If the ranks of most components are lower than R, only the columns of U and rows of V that are not zero are stored,
    as the rows of one table each, with a Boolean table (C, R) that says which ones they are.
    """
    U = U.mT  # (C, R, d_out)
    used = U.any(dim=2) & V.any(dim=2)  # (C, R)
    if used.float().mean() > 0.75:
        return {f"U.{layer}": U.mT.contiguous(), f"V.{layer}": V.contiguous()}
    return {f"U.{layer}": U[used], f"V.{layer}": V[used], f"used.{layer}": used}


def with_factors(layer: str, tensors: Tensors) -> Tensors:
    """Stored tensors with U and V of this layer in their original form; the inverse of `factors_to_store`."""
    if f"used.{layer}" not in tensors:
        return tensors
    used = tensors[f"used.{layer}"]

    def spread(rows: Tensor) -> Tensor:
        table = rows.new_zeros(*used.shape, rows.shape[1])
        table[used] = rows
        return table

    U, V = spread(tensors[f"U.{layer}"]), spread(tensors[f"V.{layer}"])
    return tensors | {f"U.{layer}": U.mT.contiguous(), f"V.{layer}": V}


def write_checkpoint(folder: Path, tensors: Tensors, facts: Facts) -> None:
    """Write a checkpoint over the previous one. After an OSError the previous one is as it was."""
    text = json.dumps({"format": FORMAT, **facts})
    with _partial(folder) as partial:
        write_file(partial / CHECKPOINT, save(tensors, {"facts": text, "sha256": _digest(tensors, text)}))
        os.replace(partial / CHECKPOINT, folder / CHECKPOINT)


def read_checkpoint(folder: Path) -> tuple[Tensors, Facts]:
    """Read a checkpoint; raises ValueError if there is none, or if it is damaged."""
    if not has_checkpoint(folder):
        problem = "holds no checkpoint" if folder.is_dir() else "does not exist"
        raise ValueError(
            f"{str(folder)!r} {problem}, so there is nothing to continue from; a run that was stopped before its first "
            "checkpoint is started again with run, or with pdh.run(..., out=...)"
        )
    try:
        data = (folder / CHECKPOINT).read_bytes()  # in one go, since another process may be writing the next one
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length])["__metadata__"]
        tensors = {name: tensor.clone() for name, tensor in load(data).items()}
        intact = _digest(tensors, metadata["facts"]) == metadata["sha256"]
        facts = dict(json.loads(metadata["facts"])) if intact else {}
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError, SafetensorError) as error:
        raise ValueError(f"{str(folder / CHECKPOINT)!r} is damaged ({error}); start the run again") from error
    if facts.get("format") == FORMER_FORMAT:
        return present_tensors(tensors), present_facts(facts)
    if facts.get("format") != FORMAT:
        reason = f"its format is {facts.get('format')!r}" if intact else "its checksum does not fit"
        raise ValueError(f"{str(folder / CHECKPOINT)!r} is damaged ({reason}); start the run again")
    return tensors, facts


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint, and the folder too if it is then empty."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class Checkpoints:
    """Writes checkpoints to one folder every few seconds; `pack()` returns the tensors and facts to write.

    A full disk does not end the run: the previous checkpoint stays as it was, and there is one warning.
    """

    def __init__(self, folder: Path, pack: Callable[[], tuple[Tensors, Facts]]):
        self.folder, self.pack = folder, pack
        self._due, self._warned = 0.0, False

    def write_if_due(self) -> None:
        """Write a checkpoint if the last one is old enough."""
        if time.perf_counter() >= self._due:
            self.write()

    def write(self) -> None:
        """Write a checkpoint now."""
        began = time.perf_counter()
        try:
            write_checkpoint(self.folder, *self.pack())
        except OSError as error:
            if not self._warned:
                consequence = "the one before is kept" if has_checkpoint(self.folder) else "there is none yet"
                warnings.warn(
                    f"no checkpoint could be written to {str(self.folder)!r} ({error.strerror}): training continues, "
                    f"and {consequence}",
                    stacklevel=2,
                )
            self._warned = True
        ended = time.perf_counter()
        self._due = ended + max(CHECKPOINT_EVERY, (ended - began) / CHECKPOINT_SHARE)


@contextmanager
def waiting_interrupts() -> Iterator[Callable[[], bool]]:
    """Within the block, the first Ctrl-C does not interrupt; a second one does.

    The block gets a function that says whether Ctrl-C has been pressed, so that a training step can be completed before
    the program stops. Nothing changes if Ctrl-C has another handler already, or in a thread, where it cannot arrive.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder` for files that are not complete yet; `folder` is created if necessary."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for remnant in folder.glob(".partial-*"):  # of a process that was killed
        shutil.rmtree(remnant, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=".partial-"))
    try:
        yield partial
    finally:
        shutil.rmtree(partial)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def write_file(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(tensors: Tensors, text: str) -> str:
    """A checksum of tensors, their names and shapes, and a text."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
