"""Whatever people have as data gives batches that a generator alone decides, and nobody's random numbers change."""

import itertools
import random
import weakref
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import Generator, nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
)

from pd_helpers.runs.data import as_source, fingerprint
from pd_helpers.runs.validation import batch_fingerprint

pytestmark = pytest.mark.usefixtures("as_a_user")

X = torch.arange(40.0).view(20, 2)
"""Twenty inputs that are all different."""
LABELS = torch.arange(20)
TOKENS = torch.arange(60).view(20, 3)


def seeded(seed=0):
    return Generator().manual_seed(seed)


def drawn(source, n, generator, batch_size=4):
    return [source(batch_size, generator) for _ in range(n)]


def firsts(batches):
    """The first number of each input of each batch, by which inputs are known."""
    tensors = (batch if isinstance(batch, torch.Tensor) else next(iter(batch)) for batch in batches)
    return [tensor.reshape(len(tensor), -1)[:, 0].tolist() for tensor in tensors]


def random_states():
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2:], random.getstate()


# Kinds of data


class Pairs(Dataset):
    """A map-style Dataset of its own."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        if not isinstance(i, int):
            raise TypeError("one number at a time")
        return X[i], int(LABELS[i])


class Column:
    """Like a data set of Hugging Face: no subclass of torch's, examples are dictionaries."""

    def __len__(self):
        return len(TOKENS)

    def __getitem__(self, i):
        return {"input_ids": TOKENS[i].tolist(), "text": f"number {i}"}


class Numbers(IterableDataset):
    """Examples one after another."""

    def __init__(self, n=10):
        self.n = n

    def __iter__(self):
        return (torch.tensor([float(i), 0.0]) for i in range(self.n))


class Batches:
    """Batches one after another, from the beginning each time."""

    def __init__(self, n=5, size=3):
        self.n, self.size = n, size

    def __iter__(self):
        for i in range(self.n):
            yield torch.full((self.size, 2), float(i))


class Unknown(Sampler):
    """A sampler that shuffles with Python's random numbers, and does not know its length."""

    def __iter__(self):
        return iter(random.sample(range(20), 20))


Pair = namedtuple("Pair", "x label")
WITHOUT_MEMORY = {
    "function": lambda n, generator: X[torch.randint(20, (n,), generator=generator)],
    "tensor": X,
    "array": X.numpy(),
    "tuple": (X, LABELS),
    "named tuple": Pair(X, LABELS),
    "dictionary": {"x": X, "label": LABELS.numpy(), "use_cache": False},
    "TensorDataset": TensorDataset(X, LABELS),
    "Dataset": Pairs(),
    "Subset": Subset(Pairs(), range(10)),
    "list": list(X),
    "list of pairs": list(zip(X, LABELS, strict=True)),
    "like Hugging Face": Column(),
}
STREAMS = {
    "DataLoader": lambda: DataLoader(TensorDataset(X, LABELS), batch_size=4),
    "shuffled": lambda: DataLoader(TensorDataset(X, LABELS), batch_size=4, shuffle=True),
    "shuffled by a generator": lambda: DataLoader(TensorDataset(X), batch_size=4, shuffle=True, generator=seeded(9)),
    "sampler with a generator": lambda: DataLoader(X, batch_size=4, sampler=RandomSampler(X, True, 20, seeded(9))),
    "weighted": lambda: DataLoader(X, batch_size=4, sampler=WeightedRandomSampler(torch.ones(20), 20)),
    "sampler without a length": lambda: DataLoader(X, batch_size=4, sampler=Unknown()),
    "distributed": lambda: DataLoader(X, batch_size=4, sampler=DistributedSampler(X, num_replicas=1, rank=0)),
    "without automatic batches": lambda: DataLoader(X.view(5, 4, 2), batch_size=None, shuffle=True),
    "loader of an iterable": lambda: DataLoader(Numbers(), batch_size=4),
    "IterableDataset": Numbers,
    "iterable": Batches,
}
SHUFFLED = set(STREAMS) - {"DataLoader", "distributed", "loader of an iterable", "IterableDataset", "iterable"}


@pytest.mark.parametrize("name", WITHOUT_MEMORY)
def test_data_without_memory(name):
    """The generator alone decides, wherever it stands; there is no position."""
    source = as_source(WITHOUT_MEMORY[name])
    assert source.data is WITHOUT_MEMORY[name]
    assert source.batch_size is None
    assert not source.one_pass
    draw = seeded()
    first = [fingerprint(batch) for batch in drawn(source, 3, draw)]
    assert len(set(first)) == 3
    state = draw.get_state()
    fourth = fingerprint(source(4, draw))
    assert source.position(draw) == 0
    other = seeded(7)
    other.set_state(state)
    assert fingerprint(source(4, other)) == fourth
    assert [fingerprint(batch) for batch in drawn(source, 3, seeded())] == first


def test_rows_of_a_table_stay_together():
    for data in ((X, LABELS), (X.numpy(), LABELS.numpy()), TensorDataset(X, LABELS), Pairs(), list(Pairs())[:20]):
        x, labels = as_source(data)(100, seeded())
        assert torch.equal(x, X[labels])
        assert labels.dtype == torch.int64
        assert set(labels.tolist()) == set(range(20))  # which a hundred draws with replacement all but surely hit


def test_the_form_of_a_batch_is_that_of_the_data():
    batch = as_source({"x": X.double(), "label": LABELS.numpy(), "use_cache": False})(3, seeded())
    assert list(batch) == ["x", "label", "use_cache"]
    assert batch["x"].dtype == torch.float64
    assert batch["use_cache"] is False
    assert isinstance(as_source(Pair(X, LABELS))(3, seeded()), Pair)
    assert as_source(TOKENS)(3, seeded()).dtype == torch.int64


def test_lists_of_tokens_become_tensors():
    batch = as_source(Column())(4, seeded())
    assert batch["input_ids"].shape == (4, 3)
    assert batch["text"] == [f"number {i // 3}" for i in batch["input_ids"][:, 0].tolist()]
    assert as_source([[1, 2, 3], [4, 5, 6]])(7, seeded()).shape == (7, 3)


def test_arrays_that_torch_does_not_share(tmp_path):
    np.save(tmp_path / "tokens.npy", TOKENS.numpy().astype(np.uint16))
    for array in (
        X.numpy()[::-1],
        X.numpy().astype(">f4"),
        np.load(tmp_path / "tokens.npy", mmap_mode="r"),
    ):
        batch = as_source(array)(50, seeded())
        assert {row[0] for row in batch.tolist()} <= set(array[:, 0].tolist())


def test_examples_are_taken_at_once_where_that_is_possible():
    class AtOnce(Column):
        def __getitems__(self, numbers):
            return [(TOKENS[i], i) for i in numbers]

    tokens, numbers = as_source(AtOnce())(4, seeded())
    assert torch.equal(tokens, TOKENS[numbers])


class Noisy(Pairs):
    """Draws from all three global random states."""

    def __getitem__(self, i):
        return X[i] + torch.rand(2) + float(np.random.rand()) + random.random()


def test_what_a_dataset_draws_is_decided_by_the_generator():
    for data in (Noisy(), DataLoader(Noisy(), batch_size=4, shuffle=True)):
        one, two = as_source(data), as_source(data)
        first = drawn(one, 7, seeded())
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        assert [fingerprint(x) for x in first] == [fingerprint(x) for x in drawn(two, 7, seeded())]
        assert len({fingerprint(x) for x in (*first, *drawn(two, 7, seeded(1)))}) == 14


def noise():
    """An iterator that draws from global random states."""
    while True:
        yield torch.rand(3, 2) + torch.from_numpy(np.random.rand(3, 2)) + random.random()


@pytest.mark.parametrize("name", [*WITHOUT_MEMORY, *STREAMS, "noisy", "noisy loader", "iterator"])
def test_global_random_states_stay_as_they_were(name):
    data = {**WITHOUT_MEMORY, "noisy": Noisy(), "noisy loader": DataLoader(Noisy(), shuffle=True), "iterator": noise()}
    before = random_states()
    source, draw = as_source(data[name] if name in data else STREAMS[name]()), seeded()
    drawn(source, 7, draw)
    source.set_position(draw, 9)
    drawn(source, 2, draw)
    assert random_states() == before


def test_batches_are_on_the_device_of_the_generator():
    """Without another device here, a generator that says so."""

    class Elsewhere:
        device = torch.device("meta")

    batch = as_source(lambda n, generator: {"x": X[:n], "rest": (LABELS[:n], True)})(3, Elsewhere())
    assert batch["x"].is_meta
    assert batch["rest"][0].is_meta
    assert batch["rest"][1] is True


def test_a_source_is_a_source():
    source = as_source(X)
    assert as_source(source) is source


# Streams


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_depends_on_the_seed_alone(name):
    """Also where the loader's own generator has moved meanwhile; and it starts again at its end."""
    data = STREAMS[name]()
    source = as_source(data)
    assert source.data is data
    first = firsts(drawn(source, 12, seeded()))
    list(data)
    assert firsts(drawn(source, 12, seeded())) == first
    assert firsts(drawn(as_source(data), 12, seeded())) == first
    other = firsts(drawn(source, 12, seeded(1)))
    assert (other != first) == (name in SHUFFLED)


@pytest.mark.parametrize("name", ["shuffled", "shuffled by a generator", "without automatic batches"])
def test_each_epoch_has_an_order_of_its_own(name):
    numbers = [
        list(itertools.chain(*firsts(epoch))) for epoch in in_fives(drawn(as_source(STREAMS[name]()), 15, seeded()))
    ]
    assert all(sorted(epoch) == X[:, 0].tolist() for epoch in numbers)
    assert len(set(map(tuple, numbers))) == 3


def in_fives(batches):
    return [batches[i : i + 5] for i in range(0, len(batches), 5)]


def test_a_loaders_own_generator_stays_as_it_was():
    own = seeded(9)
    data = DataLoader(X, batch_size=4, shuffle=True, generator=own)
    before = own.get_state()
    drawn(as_source(data), 7, seeded())
    assert torch.equal(own.get_state(), before)


def test_a_loader_gives_its_own_batches():
    source = as_source(DataLoader(TensorDataset(X, LABELS), batch_size=8, collate_fn=lambda pairs: len(pairs) * [X]))
    assert [len(batch) for batch in drawn(source, 4, seeded(), batch_size=3)] == [8, 8, 4, 8]
    assert as_source(DataLoader(X, batch_size=8)).batch_size == 8
    assert as_source(DataLoader(X, batch_size=80)).batch_size == 20
    assert as_source(Batches(size=3)).batch_size == 3


def test_an_iterable_dataset_gives_as_many_examples_as_it_is_asked_for():
    source = as_source(Numbers(10))
    assert source.batch_size is None
    assert firsts(drawn(source, 4, seeded())) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1, 2, 3]]
    assert firsts(drawn(source, 2, seeded(), batch_size=7)) == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9]]


def test_arrays_in_an_iterable_become_tensors():
    class Arrays:
        def __iter__(self):
            return ({"x": X.numpy()[i : i + 5], "name": "a"} for i in (0, 5))

    batch = as_source(Arrays())(1, seeded())
    assert torch.equal(batch["x"], X[:5])
    assert batch["name"] == "a"


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("n", [0, 3, 5, 7, 12])
def test_a_stream_continues_anywhere(name, n):
    source, draw = as_source(STREAMS[name]()), seeded()
    drawn(source, n, draw)
    assert source.position(draw) == n
    rest = firsts(drawn(source, 9, draw))
    for again in (source, as_source(STREAMS[name]())):
        other = seeded()
        again.set_position(other, n)
        assert again.position(other) == n
        assert firsts(drawn(again, 9, other)) == rest
        again.set_position(other, n)
        assert firsts(drawn(again, 9, other)) == rest


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**63])
def test_the_seed_survives_the_state_of_a_generator(seed):
    """A checkpoint holds the state, and a stream looks at the seed."""
    draw, other = seeded(seed), Generator()
    torch.rand(5, generator=draw)
    other.set_state(draw.get_state())
    data = DataLoader(X, batch_size=4, shuffle=True)
    assert firsts(drawn(as_source(data), 7, draw)) == firsts(drawn(as_source(data), 7, other))


@pytest.mark.parametrize("name", STREAMS)
def test_readers_do_not_disturb_one_another(name):
    source, readers = as_source(STREAMS[name]()), [seeded(), seeded(), seeded(1)]
    alone = [firsts(drawn(source, 12, seeded(reader.initial_seed()))) for reader in readers]
    together = [[] for _ in readers]
    for step in range(12):
        for i, reader in enumerate(readers):
            if i == 0 or step % (i + 1):
                together[i] += drawn(source, 1, reader)
    for batches, expected in zip(together, alone, strict=True):
        assert firsts(batches) == expected[: len(batches)]


def test_a_reader_is_forgotten_with_its_generator():
    opened = weakref.WeakSet()

    class Tracked(Batches):
        def __iter__(self):
            batches = super().__iter__()
            opened.add(batches)
            return batches

    source, draw = as_source(Tracked()), seeded()
    source(4, draw)
    assert len(opened) == 1
    source.close(draw)
    assert len(opened) == 0
    assert firsts([source(4, draw)]) == [[1, 1, 1]]  # closing has not moved it
    assert len(opened) == 1
    del draw
    assert len(opened) == 0


def test_a_batch_that_failed_is_tried_again():
    class Fragile(Batches):
        fails = False

        def __iter__(self):
            for i, batch in enumerate(super().__iter__()):
                if self.fails and i == 2:
                    raise KeyboardInterrupt
                yield batch

    data, draw = Fragile(), seeded()
    source = as_source(data)
    drawn(source, 2, draw)
    data.fails = True
    with pytest.raises(KeyboardInterrupt):
        source(4, draw)
    data.fails = False
    assert firsts([source(4, draw)]) == [[2, 2, 2]]


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
def test_loaders_with_workers(persistent):
    """Two readers at once, continued in the middle of the second epoch; what workers draw is decided as well."""

    def source():
        return as_source(DataLoader(Noisy(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=persistent))

    one, draw, reader = source(), seeded(), seeded()
    numbers = [fingerprint(one(4, draw)) for _ in range(7)]
    assert [fingerprint(one(4, reader)) for _ in range(3)] == numbers[:3]
    rest = [fingerprint(one(4, draw)) for _ in range(5)]
    assert len({*numbers, *rest}) == 12
    two, other = source(), seeded()
    two.set_position(other, 7)
    assert [fingerprint(two(4, other)) for _ in range(5)] == rest
    for each, generator in ((one, draw), (one, reader), (two, other)):
        each.close(generator)


# Iterators


def counted(n):
    for i in range(n):
        yield torch.full((3, 2), float(i))


def test_what_is_drawn_before_training_is_given_again():
    source, draw = as_source(counted(8)), seeded()
    assert source.one_pass
    assert source.batch_size == 3
    assert firsts(drawn(source, 3, seeded())) == [[0] * 3, [1] * 3, [2] * 3]
    assert firsts(drawn(source, 1, seeded(1))) == [[0] * 3]
    source.begin(draw)
    assert [batch[0, 0].item() for batch in drawn(source, 8, draw)] == list(range(8))
    assert source.position(draw) == 8
    with pytest.raises(ValueError, match="data is an iterator that ended after 8 batches; a DataLoader, .* again"):
        source(4, draw)


def test_what_the_training_has_had_is_forgotten():
    class Setting:
        """Something that goes along with each batch."""

    alive = weakref.WeakSet()

    def batches():
        while True:
            setting = Setting()
            alive.add(setting)
            yield torch.zeros(3, 2), setting

    source, draw = as_source(batches()), seeded()
    drawn(source, 20, seeded())
    assert len(alive) == 20
    source.begin(draw)
    for _ in range(50):
        source(4, draw)
    assert len(alive) == 2  # the first one, and the one that the iterator still holds


def test_the_evaluation_of_an_iterator():
    """It begins with the first batch, which is always there, and continues with batches that nobody has had."""
    source, draw = as_source(counted(6)), seeded()
    source.begin(draw)
    drawn(source, 4, draw)
    late = seeded(2)
    assert [batch[0, 0].item() for batch in drawn(source, 3, late)] == [0, 4, 5]
    assert [batch[0, 0].item() for batch in drawn(source, 2, draw)] == [4, 5]
    assert source(4, seeded())[0, 0] == 0


def test_batches_that_are_changed_are_given_as_they_were():
    table = torch.zeros(3, 2)

    def one_tensor():
        for i in range(5):
            yield table.fill_(float(i))

    source, draw = as_source(one_tensor()), seeded()
    for batch in drawn(source, 3, seeded()):
        batch.fill_(100.0)
    source.begin(draw)
    assert [batch[0, 0].item() for batch in drawn(source, 5, draw)] == list(range(5))


def test_a_new_iterator_continues_after_what_was_drawn():
    source, draw = as_source(counted(8)), seeded()
    source(4, seeded())  # the checks
    source.set_position(draw, 5)
    source.begin(draw)
    assert [batch[0, 0].item() for batch in drawn(source, 3, draw)] == [5, 6, 7]
    with pytest.raises(ValueError, match="cannot go back to batch 5, since 8 have been taken .* new iterator"):
        source.set_position(draw, 5)
    with pytest.raises(ValueError, match="ended after 4 batches"):
        as_source(counted(4)).set_position(seeded(), 5)


def test_iterators_of_all_kinds_are_read_once():
    class Hidden:
        batches = counted(4)

        def __iter__(self):
            return self.batches

    for data in (iter([X, X]), map(torch.neg, [X]), zip([X], [LABELS], strict=True), iter(DataLoader(X)), Hidden()):
        assert as_source(data).one_pass


def test_a_generator_may_draw_random_numbers():
    one, two = as_source(noise()), as_source(noise())
    batches = drawn(one, 5, seeded())
    assert [fingerprint(x) for x in batches] == [fingerprint(x) for x in drawn(two, 5, seeded())]
    assert len({fingerprint(x) for x in batches}) == 5


# What is refused


class Shapeless(Dataset):
    """Neither a length nor examples."""


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (None, "None"),
        (3, "3"),
        ("tokens.txt", "'tokens.txt'"),
        (b"abc", "b'abc'"),
        ({1, 2}, r"\{1, 2\}"),
        (nn.Linear(3, 2), "a Linear"),
        (TensorDataset, "the class TensorDataset"),
        (Shapeless(), "a Shapeless"),
        (torch, "a module"),
        ((), r"\(\)"),
        ({}, r"\{\}"),
        (([1, 2], X), "a list|\\[1, 2\\]"),
        ({"x": X, "labels": {1}}, r"\{1\}"),
        (np.array(["a", "b"]), r"an? ndarray of shape \(2,\)"),
    ],
)
def test_what_gives_no_batches(data, shown):
    with pytest.raises(
        TypeError, match=f"^data must be a function .*, but is ({shown}); lambda n, generator: .* works$"
    ):
        as_source(data)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"x": X, "y": X[:3]}, TypeError, "as many rows in each of its tensors, but they have .* in {'x': a Tensor of"),
        (torch.tensor(3.0), ValueError, r"at least one input, but is a Tensor of shape \(\)"),
        (X[:0], ValueError, r"at least one input, but is a Tensor of shape \(0, 2\)"),
        ([], ValueError, r"at least one input, but is \[\]"),
        (DataLoader([]), ValueError, "must give batches, but a DataLoader is empty"),
        (Numbers(0), ValueError, "must give batches, but a Numbers is empty"),
        (Batches(0), ValueError, "must give batches, but a Batches is empty"),
        (iter([]), ValueError, "must give batches, but a list_iterator is at its end; a new one works"),
        (
            [None, None],
            ValueError,
            "examples that make a batch together, but torch says: default_collate: .* collate_fn",
        ),
        (lambda: 0, TypeError, "must take a batch size and a generator, but there are too many positional arguments"),
        (counted, TypeError, "must take a batch size and a generator"),
    ],
)
def test_what_cannot_be_drawn_from(data, error, message):
    with pytest.raises(error, match=f"^data {message}|^data must have {message}|^data must hold {message}"):
        as_source(data)


def test_a_table_of_another_library():
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"for each number, but data\[0\] of a DataFrame of shape .* raises KeyError"):
        as_source(pandas.DataFrame({"a": [1, 2]}))


def test_examples_of_different_lengths():
    source = as_source([[1, 2], [3]])
    with pytest.raises(
        ValueError, match="torch says: stack expects each tensor to be equal size.*collate_fn that pads"
    ):
        source(64, seeded())


def test_an_iterable_that_is_used_up():
    class Once:
        def __init__(self):
            self.batches = list(counted(3))

        def __iter__(self):
            while self.batches:
                yield self.batches.pop()

    source, draw = as_source(Once()), seeded()
    with pytest.raises(ValueError, match="gives none when it starts again; a DataLoader, or an object whose __iter__"):
        drawn(source, 4, draw)


# Fingerprints


def test_the_fingerprint_of_one_tensor_is_that_of_stored_runs():
    for x in (X, X.T, TOKENS, X.double(), X.bfloat16(), X > 3, X[:0], X.requires_grad_()):
        assert fingerprint(x) == batch_fingerprint(lambda n, generator, x=x: x, 0)


def test_fingerprints_tell_batches_apart():
    x = X.detach()
    batches = [
        x,
        x.double(),
        x.view(2, 20),
        x + torch.eye(20, 2) * 1e-4,
        x[0, 0],
        (x,),
        (x, x),
        (x, (x,)),
        ((x, x),),
        {"x": x},
        {"y": x},
        {"x": x, "y": x},
        {"x": {"x": x}},
        {"x": x, "use_cache": False},
        {"x": x, "use_cache": True},
        {"x": x, "use_cache": None},
        (x, "a"),
        (x, ["a"]),
    ]
    assert len({fingerprint(batch) for batch in batches}) == len(batches)
    assert fingerprint([x, [x]]) == fingerprint((x, (x,)))
    assert fingerprint((x, object())) == fingerprint((x.clone(), object()))
