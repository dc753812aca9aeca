"""Files of stored runs: whenever a process or a disk fails, every file is either complete or absent.

    a finished run      tensors.safetensors, then run.json, which holds checksums of the other file and of itself
    an unfinished one   checkpoint.safetensors, with JSON facts and a checksum of everything in the file's metadata

A file is written elsewhere in the folder, flushed to the disk, and only then renamed. No file is a pickle. Whoever
reads a file looks at its facts and its header first: nothing is built, and no number read, before they agree.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pd_helpers.runs.blueprint import Entry, Unsuitable
from pd_helpers.runs.facts import Facts, check_checkpoint, check_finished
from pd_helpers.runs.folders import CHECKPOINT, PARTIAL, RUN, TENSORS, has_checkpoint, how_to_resume, is_finished
from pd_helpers.runs.former import present_facts, present_tensors

FORMAT = "pd_helpers run 3"
FORMER_FORMATS = ("pd_helpers run 1", "pd_helpers run 2")
"""Formats that are still read. Their facts have no checksum."""
LARGEST_TEXT = 2**24
"""Bytes of JSON in a run; ordinary runs have a few thousand, and the parser needs some twenty times as much memory."""

CHECKPOINT_EVERY = 5.0
"""Smallest number of seconds between two checkpoints."""
CHECKPOINT_SHARE = 0.05
"""Largest share of the time that is spent on writing checkpoints; where they take long, they are written less often."""

Tensors = dict[str, Tensor]
"""Name → tensor."""
Check = Callable[[Facts, dict[str, Entry]], None]
"""Compares facts with the header of the tensors' file; raises ValueError where they disagree."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BOOL": torch.bool,
}
"""Name of a type in a safetensors file → type."""


def write_run(folder: Path, tensors: Tensors, facts: Facts, format: str = FORMAT) -> None:
    """Write a finished run, or any tensors with JSON facts. After an OSError there is no part of it."""
    with _partial(folder) as partial:
        write_file(partial / TENSORS, save(tensors))
        with (partial / TENSORS).open("rb") as file:
            facts = sealed({"format": format, **facts, "sha256": _sha256(file)})
        write_file(partial / RUN, (_as_json(facts, indent=1) + "\n").encode())
        for name in (TENSORS, RUN):
            os.replace(partial / name, folder / name)


def read_facts(folder: Path, format: str = FORMAT) -> Facts:
    """The contents of a finished run's `run.json`; raises ValueError, which names the field, if anything is wrong."""
    if has_checkpoint(folder) and not is_finished(folder):
        raise ValueError(f"the run in {str(folder)!r} is not finished; {how_to_resume(folder)}")
    problem = "does not exist" if not folder.exists() else "is a file" if folder.is_file() else f"holds no {RUN}"
    if not (folder / RUN).is_file():
        raise ValueError(f"{str(folder)!r} is not a run: it {problem}; a folder written by Run.save or --out is")
    try:
        with (folder / RUN).open("rb") as file:
            facts = _parsed(file.read(LARGEST_TEXT + 1))
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(folder)!r} is not a run: its {RUN} cannot be read ({error})") from error
    stored_format = facts.get("format")
    formats = (FORMAT, *FORMER_FORMATS) if format == FORMAT else (format,)
    if stored_format not in formats:
        raise ValueError(f"{str(folder)!r} is not a run: its format is {stored_format!r}, not {format!r}")
    try:
        if format == FORMAT:
            present = present_facts(facts) if stored_format in FORMER_FORMATS else facts
            check_finished(present)
        has_checksum = "checksum" in facts or stored_format == FORMAT
        if has_checksum and facts.get("checksum") != sealed(facts)["checksum"]:
            raise ValueError("checksum does not fit, so something in it was changed after it was written")
    except ValueError as error:
        raise ValueError(f"the run in {str(folder)!r} is damaged: {RUN}: {error}") from error
    return present if format == FORMAT else facts


def read_run(folder: Path, format: str = FORMAT, check: Check | None = None) -> tuple[Tensors, Facts]:
    """Read a finished run; raises ValueError if the folder is not a run, is damaged, or fails the check."""
    facts = read_facts(folder, format)
    try:
        if not (folder / TENSORS).is_file():  # opening a pipe would wait for ever
            raise ValueError("it is missing")
        with (folder / TENSORS).open("rb") as file:
            header = _read_header(file)
            _apply(check, facts, header.entries)
            if _sha256(file) != facts.get("sha256"):
                raise ValueError("its checksum is not the one in run.json")
            file.seek(0)
            return load(file.read()), facts
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"the run in {str(folder)!r} is damaged: {TENSORS}: {error}") from error


def write_checkpoint(folder: Path, tensors: Tensors, facts: Facts) -> None:
    """Write a checkpoint over the previous one. After an OSError the previous one is as it was."""
    text = _as_json({"format": FORMAT, **facts})
    with _partial(folder) as partial:
        write_file(partial / CHECKPOINT, save(tensors, {"facts": text, "sha256": digest(tensors, text)}))
        os.replace(partial / CHECKPOINT, folder / CHECKPOINT)


def read_checkpoint(folder: Path, check: Check | None = None) -> tuple[Tensors, Facts]:
    """Read a checkpoint; raises ValueError if there is none, it is damaged, or it fails the check."""
    if not has_checkpoint(folder):
        problem = "is a file" if folder.is_file() else "holds no checkpoint" if folder.is_dir() else "does not exist"
        raise ValueError(
            f"{str(folder)!r} {problem}, so there is nothing to continue from; a run that was stopped before its first "
            "checkpoint is started again with run, or with pdh.run(..., out=...)"
        )
    try:
        with (folder / CHECKPOINT).open("rb") as file:
            header = _read_header(file)
            text, checksum = (header.metadata.get(key, "") for key in ("facts", "sha256"))
            stored = _parsed(text.encode())
            is_former = stored.get("format") in FORMER_FORMATS
            if not is_former and stored.get("format") != FORMAT:
                raise ValueError(f"its format is {stored.get('format')!r}, not {FORMAT!r}")
            facts = present_facts(stored) if is_former else stored
            check_checkpoint(facts)
            entries = present_tensors(header.entries) if is_former else header.entries
            _apply(check, facts, entries)
            file.seek(0)
            tensors = {name: tensor.clone() for name, tensor in load(file.read()).items()}
        if digest(tensors, text) != checksum:
            raise ValueError("its checksum does not fit, so it was changed after it was written")
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{str(folder / CHECKPOINT)!r} is damaged ({error}); start the run again") from error
    return (present_tensors(tensors) if is_former else tensors), facts


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def sealed(facts: Facts) -> Facts:
    """The facts with a checksum of everything else in them."""
    rest = {name: value for name, value in facts.items() if name != "checksum"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "checksum": hashlib.sha256(text.encode()).hexdigest()}


def stored_form(tensors: Tensors) -> Tensors:
    """The tensors as files hold them: on the CPU, contiguous, without gradients, each with memory of its own."""
    stored, memory = {}, set()
    for name, tensor in tensors.items():
        stored[name] = plain = tensor.detach().cpu().contiguous()
        if (place := plain.untyped_storage().data_ptr()) in memory:
            stored[name] = plain.clone()
        memory.add(place)
    return stored


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


def write_file(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class _Header(NamedTuple):
    """What stands before the numbers of a safetensors file."""

    entries: dict[str, Entry]
    metadata: dict[str, str]


def _read_header(file: BinaryIO) -> _Header:
    """The header of a safetensors file; raises ValueError unless the file is as long as the header says."""
    n_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(n_bytes - 8, LARGEST_TEXT):
        raise ValueError("it is cut, or no safetensors file")
    stored = _parsed(file.read(length))
    metadata = stored.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not texts")
    entries = {}
    for name, entry in stored.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape)} if dtype in DTYPES and all(type(n) is int for n in shape):
                entries[name] = Entry(DTYPES[dtype], tuple(shape))
            case _:
                raise ValueError(f"the header's entry for {name!r} is not one of a tensor")
    if any(n < 0 for _, shape in entries.values() for n in shape):
        raise ValueError("a shape in its header is negative")
    n_expected = 8 + length + sum(dtype.itemsize * _product(shape) for dtype, shape in entries.values())
    if n_bytes != n_expected:
        raise ValueError(f"it has {n_bytes} bytes, but its header says {n_expected}")
    return _Header(entries, metadata)


def _apply(check: Check | None, facts: Facts, entries: dict[str, Entry]) -> None:
    try:
        if check is not None:
            check(facts, entries)
    except (ValueError, Unsuitable):
        raise
    except Exception as error:  # torch's, of whatever kind, about sizes that it cannot even describe
        raise ValueError(f"what the facts describe cannot be built ({error})") from error


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product


def _parsed(text: bytes) -> dict[str, Any]:
    """The mapping that a JSON text holds; raises ValueError for any other text."""
    if len(text) > LARGEST_TEXT:
        raise ValueError(f"it has more than {LARGEST_TEXT} bytes of JSON, which are not read")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        reason = "a number in it has too many digits" if "integer string" in str(error) else error
        raise ValueError(f"it is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, not a mapping")
    return value


def _as_json(facts: Facts, indent: int | None = None) -> str:
    text = json.dumps(facts, indent=indent)
    if len(text) > LARGEST_TEXT:
        raise OSError(errno.EFBIG, f"it would hold {len(text)} bytes of JSON, of which at most {LARGEST_TEXT} are read")
    return text


@contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder` for files that are not complete yet; `folder` is created if necessary."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder, prefix=PARTIAL))
    try:
        yield partial
    finally:
        shutil.rmtree(partial)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _sha256(file: BinaryIO) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def digest(tensors: Tensors, text: str) -> str:
    """A checksum of tensors, their names and shapes, and a text."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
