"""What of a batch goes into a network: its forward decides, or says what is not clear."""

import functools

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate

from pd_helpers.core.networks.batches import call
from pd_helpers.runs.inputs import taken_by

pytestmark = pytest.mark.usefixtures("as_a_user")

X, Y = torch.arange(6.0).view(3, 2), torch.arange(3)


def network(forward):
    """A network with this forward."""

    class Network(nn.Module):
        pass

    Network.forward = forward
    return Network()


def logged(forward):
    @functools.wraps(forward)
    def wrapper(*args, **kwargs):
        return forward(*args, **kwargs)

    return wrapper


ONE = network(lambda self, x: x)
TWO = network(lambda self, a, b: (a, b))
MASKED = network(lambda self, x, mask=None: (x, mask))
OPTIONAL = network(lambda self, input_ids=None, attention_mask=None, **kwargs: (input_ids, attention_mask, kwargs))
KEYWORD = network(lambda self, x, *, mask=None: (x, mask))
REST = network(lambda self, x, *rest: (x, rest))
ANY = network(lambda self, *x: x)
NAMED = network(lambda self, **x: x)
BATCH = network(lambda self, batch, **settings: (batch, settings))
STACK = nn.Sequential(nn.Identity())


@pytest.mark.parametrize(
    ("net", "batch", "answer"),
    [
        (ONE, X, X),
        (TWO, X, None),
        (ONE, (X,), X),
        (ONE, [X], X),
        (ONE, [X, Y], X),
        (ONE, (X, Y, Y), X),
        (ONE, ((X, Y), Y), (X, Y)),
        (STACK, [X, Y], X),
        (TWO, (X, Y), (X, Y)),
        (TWO, [X, Y, Y], (X, Y)),
        (MASKED, (X,), (X, None)),
        (KEYWORD, (X, Y), (X, None)),
        (OPTIONAL, (Y,), (Y, None, {})),
        (REST, (X,), (X, ())),
        (ANY, (X, Y), (X, Y)),
        (network(logged(ONE.forward.__func__)), (X, Y), X),
        (nn.DataParallel(ONE), (X, Y), X),
        (nn.DataParallel(TWO), (X, Y), (X, Y)),
        (torch.compile(ONE, backend="eager"), (X, Y), X),
        (torch.compile(nn.DataParallel(ONE), backend="eager"), (X, Y), X),
        (MASKED, {"x": X}, (X, None)),
        (MASKED, {"mask": Y, "x": X}, (X, Y)),
        (KEYWORD, {"mask": Y, "x": X}, (X, Y)),
        (OPTIONAL, {"input_ids": Y, "labels": Y}, (Y, None, {"labels": Y})),
        (NAMED, {"a": X, "b": Y}, {"a": X, "b": Y}),
        (ONE, {"a": X, "b": Y}, {"a": X, "b": Y}),
        (STACK, {"a": X, "b": Y}, {"a": X, "b": Y}),
        (BATCH, {"a": X, "b": Y}, ({"a": X, "b": Y}, {})),
        (nn.DataParallel(MASKED), {"x": X, "mask": Y}, (X, Y)),
    ],
)
def test_what_the_network_is_called_with(net, batch, answer):
    """Seen by the network itself."""
    taken = taken_by(net)(batch)
    if answer is None:
        assert taken is batch
    else:
        assert_same(call(net, taken), answer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_networks_that_torch_has_compiled():
    """A traced one does not say what it takes, and gets everything."""
    assert_same(taken_by(torch.jit.script(nn.Identity()))([X, Y]), X)
    assert_same(taken_by(torch.jit.trace(nn.Identity(), X))([X, Y]), (X, Y))


def assert_same(one, other):
    if isinstance(other, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(other, tuple | dict):
        assert type(one) is type(other)
        assert len(one) == len(other)
        parts = (
            [(one[name], other[name]) for name in other] if isinstance(other, dict) else zip(one, other, strict=True)
        )
        for a, b in parts:
            assert_same(a, b)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("net", "batch", "message"),
    [
        (
            MASKED,
            (X, Y),
            r"of 2 entries, of which forward\(x, mask=None\) could take 1, as x, or more, as x, mask; "
            r"inputs=lambda batch: batch\[0\] works",
        ),
        (OPTIONAL, (Y, Y), "could take 1, as input_ids, or more, as input_ids, attention_mask; inputs="),
        (REST, (X, Y), r"could take 1, as x, or more, as x, \*rest; inputs=lambda batch: batch\[0\] works"),
        (
            network(lambda self, a, b, mask=None: a),
            (X, Y, Y),
            r"could take 2, as a, b, or more, as a, b, mask; inputs=lambda batch: tuple\(batch\[:2\]\) works",
        ),
        (TWO, (X,), r"of 1 entry, but forward\(a, b\) takes 2; data that gives \(a, b\) works"),
        (
            ONE,
            {"x": X, "labels": Y},
            r"data gives 'labels', which forward\(x\) does not take; inputs=lambda batch: {'x': batch\['x'\]} works",
        ),
        (
            TWO,
            {"image": X, "label": Y},
            r"'image', 'label', which forward\(a, b\) does not .* batch\['image'\] works",
        ),
        (network(lambda self, x, /: x), {"x": X, 0: Y}, None),
        (
            nn.MultiheadAttention(2, 1),
            {"query": X, "mask": Y},
            r"which forward\(query, key, value, key_padding_mask=None, ...\)",
        ),
    ],
)
def test_what_is_not_clear_is_refused(net, batch, message):
    taken = taken_by(net)
    if message is None:
        assert taken(batch) == (batch,)
        return
    with pytest.raises(ValueError, match=message):
        taken(batch)


def test_what_the_messages_suggest_works():
    assert_same(call(MASKED, taken_by(MASKED, lambda batch: batch[0])([X, Y])), (X, None))
    assert_same(call(TWO, taken_by(TWO, lambda batch: tuple(batch[:2]))([X, Y, Y])), (X, Y))
    assert_same(call(ONE, taken_by(ONE, lambda batch: {"x": batch["x"]})({"x": X, "labels": Y})), X)


def test_inputs_come_first():
    assert taken_by(ONE, inputs=len)([X, Y]) == 2
    with pytest.raises(TypeError, match=r"inputs must be a function .*, but is 'x'; lambda batch: batch\[0\] works"):
        taken_by(ONE, inputs="x")


def test_a_batch_of_a_tokeniser():
    transformers = pytest.importorskip("transformers")
    tokens = torch.arange(8).view(2, 4)
    batch = transformers.BatchEncoding({"input_ids": tokens, "attention_mask": torch.ones_like(tokens)})
    config = transformers.GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    with torch.random.fork_rng():
        model = transformers.GPT2LMHeadModel(config).eval()
    taken = taken_by(model)(batch)
    assert type(taken) is dict
    assert torch.equal(call(model, taken).logits, model(**batch).logits)
    rows = taken_by(model)(default_collate([{"input_ids": row} for row in tokens]))
    torch.testing.assert_close(call(model, rows).logits, model(tokens).logits)
