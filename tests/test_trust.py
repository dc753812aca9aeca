"""Folders from strangers: whatever they hold, loading executes nothing, and ends with a run or a ValueError."""

import ast
import copy
import hashlib
import json
import pickle
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

import pd_helpers as pdh
from pd_helpers.runs import evaluation, files, folders
from pd_helpers.runs.run import Run

SMALL = {"steps": 12, "n_init": 2, "selection_steps": 4, "target_steps": 20, "batch_size": 16}
NAMES = {"apd/tms_5-2": SMALL, "spd/tms_5-2": SMALL | {"C": 6, "d_gate": 4}}
FORBIDDEN = {
    *("pickle.find_class", "ctypes.dlopen", "socket.connect", "os.remove", "os.rename", "shutil.rmtree"),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen"),
}
"""Python reports these to audit hooks before it does them."""
EXECUTE = {"eval", "exec", "compile", "__import__"}
UNPICKLE = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "importlib.util", "runpy"}

pytestmark = [pytest.mark.usefixtures("as_a_user"), pytest.mark.slow]
many = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


# --- What is watched --------------------------------------------------------------------------------------


class Watch:
    """What Python says it is about to do, while `on`. Audit hooks cannot be removed, so there is one."""

    on, seen = False, []

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.on and event in FORBIDDEN and not str(arguments[0]).endswith(folders.LOCK):
            self.seen.append((event, str(arguments)[:200]))


WATCH = Watch()
sys.addaudithook(WATCH)


@contextmanager
def nothing_is_executed():
    WATCH.seen.clear()
    WATCH.on = True
    try:
        yield
    finally:
        WATCH.on = False
    assert WATCH.seen == []


def assert_safe(read, folder: Path) -> str | None:
    """Nothing is executed, and `read` gives a run or a ValueError that names the folder, whose message this returns."""
    with nothing_is_executed():
        try:
            run = read(folder)
        except ValueError as error:
            message = str(error)
        else:
            assert isinstance(run, pdh.Run)
            return None
    assert str(folder) in message
    return message


def reading(folder: Path) -> pdh.Run:
    return pdh.load(folder)


def resuming(folder: Path) -> pdh.Run:
    return pdh.resume(folder, show_progress=False)


def test_the_watch_sees_what_a_pickle_does():
    with pytest.raises(AssertionError, match="find_class"), nothing_is_executed():
        pickle.loads(pickle.dumps(Bomb(Path("/dev/null"))))


def test_the_package_has_nothing_that_could_execute_a_file():
    for path in Path(pdh.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name)):
                    assert name not in EXECUTE, path
                case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr="load")):
                    assert module not in {"torch", "joblib", "np", "numpy"}, path
                case ast.Import(names=names):
                    assert not UNPICKLE & {alias.name for alias in names}, path
                case ast.ImportFrom(module=module):
                    assert module not in UNPICKLE, path


# --- Runs to spoil ----------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "N_EVALUATION", 256)
        patch.setattr(Run, "train_into", lambda run, *_, **__: run)  # what is resumed is not trained
        yield


@pytest.fixture(scope="module", params=list(NAMES))
def stored(request, tmp_path_factory):
    """A finished run and an unfinished one: folders, tensors and facts."""
    finished, unfinished = (tmp_path_factory.mktemp("runs") / name for name in ("finished", "unfinished"))
    run = pdh.prepare(request.param, 3, show_progress=False, **NAMES[request.param])
    for _ in zip(range(6), run.steps(), strict=False):
        pass
    files.write_checkpoint(unfinished, *run.pack_checkpoint())
    for _ in run.steps():
        pass
    run.metrics = evaluation.evaluate(run)
    run.save(finished)
    assert isinstance(pdh.load(finished), pdh.Run)  # imports what loading needs
    assert isinstance(pdh.resume(unfinished), pdh.Run)
    facts = json.loads((finished / files.RUN).read_text())
    return finished, (load_file(finished / files.TENSORS), facts), files.read_checkpoint(unfinished)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(folder: Path, tensors: bytes | dict, facts: object) -> None:
    """A finished run whose checksums are right, as an attacker would write it."""
    content = tensors if isinstance(tensors, bytes) else save(tensors)
    (folder / files.TENSORS).write_bytes(content)
    if isinstance(facts, dict):
        facts = files.sealed(facts | {"sha256": hashlib.sha256(content).hexdigest()})
    (folder / files.RUN).write_text(json.dumps(facts))


# --- Hostile content --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.just(10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SHAPES = st.lists(st.integers(0, 7), max_size=4)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])


def places(facts: object, path: tuple = ()) -> list[tuple]:
    """The path of every value inside facts."""
    items = facts.items() if isinstance(facts, dict) else enumerate(facts[:3]) if isinstance(facts, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


@st.composite
def changed_facts(draw, facts: dict) -> dict:
    """Facts with one value replaced, removed or added, at any depth."""
    facts = copy.deepcopy(facts)
    *path, last = draw(st.sampled_from(places(facts)))
    inner = facts
    for key in path:
        inner = inner[key]
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            inner[last] = draw(JSON)
        case "remove":
            del inner[last]
        case "add" if isinstance(inner, dict):
            inner[draw(st.text(max_size=8))] = draw(JSON)
    return facts


@st.composite
def changed_tensors(draw, tensors: dict) -> dict:
    """Tensors with one of another shape or type, missing, or under another name."""
    tensors = dict(tensors)
    name = draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    match draw(st.sampled_from(["shape", "dtype", "values", "missing", "name"])):
        case "shape":
            tensors[name] = torch.zeros(draw(SHAPES), dtype=tensor.dtype)
        case "dtype":
            tensors[name] = tensor.to(draw(DTYPES))
        case "values":
            tensors[name] = torch.full_like(tensor, 1) if tensor.dtype == torch.bool else tensor * 0 - 1
        case "name":
            tensors[draw(st.text(max_size=8))] = tensor
    return tensors


# --- Finished runs ----------------------------------------------------------------------------------------


@many
@given(data=st.data())
def test_changed_facts_of_a_finished_run(stored, folder, data):
    _, (tensors, facts), _ = stored
    write(folder, tensors, data.draw(changed_facts(facts)))
    assert_safe(reading, folder)


@many
@given(data=st.data())
def test_changed_tensors_of_a_finished_run(stored, folder, data):
    _, (tensors, facts), _ = stored
    write(folder, data.draw(changed_tensors(tensors)), facts)
    assert_safe(reading, folder)


@many
@given(tensors=st.binary(max_size=64), facts=JSON)
def test_anything_at_all(folder, tensors, facts):
    write(folder, tensors, facts | {"format": files.FORMAT} if isinstance(facts, dict) else facts)
    assert assert_safe(reading, folder)


@many
@given(data=st.data())
def test_changed_bytes(stored, folder, data):
    finished, _, _ = stored
    spoilt = data.draw(st.sampled_from([files.TENSORS, files.RUN]))
    for name in (files.TENSORS, files.RUN):
        content = bytearray((finished / name).read_bytes())
        if name == spoilt:
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        (folder / name).write_bytes(content)
    message = assert_safe(reading, folder)
    whole = (folder / files.TENSORS).read_bytes() == (finished / files.TENSORS).read_bytes()
    assert whole or "damaged" in message


@many
@given(data=st.data())
def test_what_is_read_is_what_was_written(stored, folder, data):
    """Facts that were changed without their checksum: the run is refused, unless nothing was changed but the layout."""
    finished, (_, facts), _ = stored
    changed = data.draw(changed_facts(facts))
    (folder / files.TENSORS).write_bytes((finished / files.TENSORS).read_bytes())
    (folder / files.RUN).write_text(json.dumps(changed, indent=data.draw(st.sampled_from([None, 3]))))
    refused = assert_safe(reading, folder)
    assert bool(refused) == (json.dumps(changed, sort_keys=True) != json.dumps(facts, sort_keys=True))


def test_a_json_bomb(stored, folder):
    _, (tensors, facts), _ = stored
    write(folder, tensors, facts)
    (folder / files.RUN).write_text("[" * 200_000)
    assert "not a run" in assert_safe(reading, folder)


# --- Unfinished runs --------------------------------------------------------------------------------------


@many
@given(data=st.data())
def test_changed_facts_of_a_checkpoint(stored, folder, data):
    _, _, (tensors, facts) = stored
    files.write_checkpoint(folder, tensors, data.draw(changed_facts(facts)))
    assert_safe(resuming, folder)


@many
@given(data=st.data())
def test_changed_tensors_of_a_checkpoint(stored, folder, data):
    _, _, (tensors, facts) = stored
    files.write_checkpoint(folder, data.draw(changed_tensors(tensors)), facts)
    assert_safe(resuming, folder)


@many
@given(content=st.binary(max_size=64) | JSON.map(lambda facts: json.dumps(facts).encode()), header=st.booleans())
def test_a_checkpoint_that_is_anything_at_all(folder, content, header):
    start = len(content).to_bytes(8, "little") if header else b""
    (folder / files.CHECKPOINT).write_bytes(start + content)
    assert "damaged" in assert_safe(resuming, folder)


# --- Pickles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["pickle", "torch", "torch, old"])
def test_a_pickle_stays_a_file(stored, folder, tmp_path, protocol):
    mark = tmp_path / "executed"
    if protocol == "pickle":
        content = pickle.dumps(Bomb(mark))
    else:
        torch.save(Bomb(mark), tmp_path / "bomb", _use_new_zipfile_serialization=protocol == "torch")
        content = (tmp_path / "bomb").read_bytes()
    _, (_, facts), _ = stored
    write(folder, content, facts)
    assert assert_safe(reading, folder)
    (folder / files.RUN).write_bytes(content)
    assert assert_safe(reading, folder)
    (folder / files.RUN).unlink()
    (folder / files.CHECKPOINT).write_bytes(content)
    assert assert_safe(resuming, folder)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # it was live
