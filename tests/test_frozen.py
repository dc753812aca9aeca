"""The network that is decomposed is a frozen copy: it computes the same, and the network itself stays as it is."""

import copy
import threading
import time

import pytest
import torch
import torch.nn.functional as F
from networks import SHARP, draw
from torch import Generator, nn
from torch.nn.utils import parametrizations, parametrize, prune

import pd_helpers as pdh
from pd_helpers.analysis import editing
from pd_helpers.core.attributions import attributions

pytestmark = pytest.mark.usefixtures("one_thread", "quick_evaluation")

SPD = pdh.SPDConfig(C=4, d_gate=3, steps=5, batch_size=16)
APD = pdh.APDConfig(C=4, steps=5, batch_size=16, top_k=2.0, hidden_coeff=1.0)


def data(n, generator):
    return torch.rand(n, 6, generator=generator)


def fit(network, config=SPD, layers=("0", "2"), **options):
    return pdh.fit(
        network, config, options.pop("data", data), list(layers), show_progress=False, device="cpu", **options
    )


def sequential(*between, seed=0, d_out=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, d_out), *between)


def assert_same(mine, theirs):
    for a, b in zip(mine.components.factors, theirs.components.factors, strict=True):
        assert torch.equal(a, b)
    assert mine.metrics == theirs.metrics


# What the copy computes


@pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])
@pytest.mark.parametrize("name", ["orthogonal", "weight_norm", "spectral_norm"])
def test_a_parametrised_weight_is_decomposed_as_the_matrix_that_it_is(name, config, tmp_path):
    def network(seed):
        result = sequential(seed=seed)
        for path in ("0", "2"):
            getattr(parametrizations, name)(result.get_submodule(path))
        return result.eval()

    plain = copy.deepcopy(network(0))
    for path in ("0", "2"):
        parametrize.remove_parametrizations(plain[int(path)], "weight")
    run = fit(network(0), config)
    assert_same(run, fit(plain, config))
    fresh, x = network(1), draw(5, 6).float()
    loaded = pdh.load(run.save(tmp_path / "run"), target=fresh)
    torch.testing.assert_close(loaded.target(x), plain(x))
    torch.testing.assert_close(fresh(x), plain(x))


def test_several_parametrised_layers_are_told_apart():
    network = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    for layer in network[:2]:
        parametrizations.orthogonal(layer)
    model = pdh.decompose(network, {"0": 4, "1": 4, "2": 4})
    assert list(model.uses) == ["0", "1", "2"]
    for path in model.uses:
        torch.testing.assert_close(model.targets[path], network.get_submodule(path).weight.detach())


def test_a_tied_weight_is_found_beside_a_parametrised_one():
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    network.append(pdh.TransposedLinear(network[1]))
    parametrizations.orthogonal(network[0])
    assert list(pdh.decompose(network, {"0": 2, "1": 2}).uses.values()) == [("0", False), ("1", False), ("1", True)]


class WithForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


class Borrowed(nn.Module):
    """Uses another layer's weight under a name of its own."""

    def __init__(self, source):
        super().__init__()
        self.table = source.weight

    def forward(self, x):
        return F.linear(x, self.table)


def changed(change):
    network = sequential()
    change(network)
    return network


REFUSED = {
    "a forward of its own": (
        lambda n: n.__setitem__(0, WithForward(6, 6)),
        "layer '0' is a WithForward with a forward",
    ),
    "a forward put on it": (lambda n: setattr(n[0], "forward", lambda x: x), "layer '0' is a Linear with a forward"),
    "a second use like that": (
        lambda n: n.append(tied_to(n[0], WithForward(6, 6))),
        "layer '0' shares its weight with '3', a WithForward",
    ),
    "another name": (lambda n: n.append(Borrowed(n[0])), "layer '0' shares its weight with '3', a Borrowed"),
    "weight norm of old": (lambda n: torch.nn.utils.weight_norm(n[0]), "the weight of layer '0' is no parameter"),
    "spectral norm of old": (lambda n: torch.nn.utils.spectral_norm(n[0]), "the weight of layer '0' is no parameter"),
    "pruned": (lambda n: prune.random_unstructured(n[0], "weight", 0.5), "the weight of layer '0' is no parameter"),
    "parametrised and shared": (
        lambda n: (n.append(tied_to(n[0], nn.Linear(6, 6))), parametrizations.orthogonal(n[0])),
        "the weight of layer '0' is computed from a parameter that '3' shares",
    ),
}


def tied_to(source, layer):
    layer.weight = source.weight
    return layer


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_computes_something_else_is_refused(name):
    change, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        pdh.decompose(changed(change), {"0": 3})


@pytest.mark.usefixtures("as_a_user")
def test_what_cannot_be_decomposed_at_all():
    with pytest.raises(TypeError, match="the network must be an nn.Module, but is a dict"):
        pdh.decompose({}, {"0": 3})
    with pytest.raises(
        TypeError, match=r"C must map paths to numbers of components, but is \['0'\]; .*\"0\": 20.* works"
    ):
        pdh.decompose(sequential(), ["0"])
    with pytest.raises(ValueError, match="parameters without values; call it on one batch"):
        pdh.decompose(nn.Sequential(nn.Linear(6, 6), nn.LazyLinear(3)), {"0": 3})
    computed = parametrizations.orthogonal(nn.Linear(4, 4))
    with pytest.raises(TypeError, match="source must have a parameter as its weight"):
        pdh.TransposedLinear(computed)


def test_a_subclass_with_the_forward_of_a_linear_layer_is_one():
    class Named(nn.Linear):
        pass

    network = nn.Sequential(Named(6, 4), nn.modules.linear.NonDynamicallyQuantizableLinear(4, 3))
    assert list(pdh.decompose(network, {"0": 2, "1": 2}).uses) == ["0", "1"]


def test_hooks_go_on_acting():
    network = sequential().double()
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    network[2].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 1,))
    model, x = pdh.decompose(network, {"0": 3, "2": 3}), draw(5, 6)
    forward = model.target_forward(x)
    torch.testing.assert_close(forward.inputs["2"], network[1](network[0](x)) + 1, **SHARP)
    torch.testing.assert_close(forward.output, network(x), **SHARP)
    W, V = model.sums["0"], model.sums["2"]
    hidden = torch.relu(2 * (x @ W.T + network[0].bias)) + 1
    torch.testing.assert_close(model(x).output, hidden @ V.T + network[2].bias, **SHARP)


class Fused(nn.Module):
    """An encoder layer, which in evaluation mode computes everything in one call if it can."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)

    def forward(self, x):
        return self.encoder(x.unsqueeze(1)).squeeze(1)


def test_evaluation_mode_calls_every_layer():
    network, x = Fused(), draw(5, 6).float()
    forward = pdh.decompose(network, {"encoder.linear1": 3}).target_forward(x)
    assert forward.inputs["encoder.linear1"].shape == (5, 1, 6)
    torch.testing.assert_close(forward.output, network.eval()(x))


class Reached(nn.Module):
    """Reaches its layers in many ways: through a list, a bound method and a partial application."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.recurrent = nn.Linear(6, 6), nn.Dropout(0.5), nn.LSTM(6, 6, batch_first=True)
        self.steps, self.by_name, self.tensor = [self.first, (self.drop,)], {"drop": self.drop}, torch.ones(6)
        self.forward = self.in_steps

    def in_steps(self, x):
        hidden = self.by_name["drop"](self.steps[1][0](self.steps[0](x)))
        return self.recurrent(hidden.unsqueeze(1))[0][:, 0] * self.tensor


def test_the_copy_is_complete():
    network, x = Reached(), draw(5, 6).float()
    model = pdh.decompose(network, {"first": 3})
    output = model(x).output
    output.sum().backward()
    assert all(p.grad is None for p in network.parameters())
    assert all(factor.grad is not None for factor in model.factors)
    network.eval()
    torch.testing.assert_close(model.target_forward(x).output, network(x))
    network.tensor.zero_()
    assert model.target_forward(x).output.any()


@pytest.mark.parametrize(("wrap", "path"), [(torch.compile, "_orig_mod.0"), (nn.DataParallel, "module.0")])
def test_a_wrapped_network(wrap, path):
    network, x = sequential(), draw(5, 6).float()
    model = pdh.decompose(wrap(network), {path: 3})
    torch.testing.assert_close(model.target_forward(x).output, network(x).detach())


def test_a_scripted_part_stays_as_it_is():
    network = sequential(torch.jit.script(nn.Dropout(0.5)))
    x = draw(5, 6).float()
    model = pdh.decompose(network, {"0": 3})
    assert network[3].training
    torch.testing.assert_close(model.target_forward(x).output, network[:3](x).detach())


@pytest.mark.parametrize("edit", ["edited", "shuffled"])
def test_edits_reach_parametrised_weights(edit):
    network = sequential().eval()
    parametrizations.orthogonal(network[0])
    W, x = network[0].weight.detach().clone(), draw(5, 6).float()
    before = network(x)
    if edit == "edited":
        changed = editing.edited(network, {"0": torch.ones(6, 6)})
        torch.testing.assert_close(changed[0].weight, W + 1)
    else:
        changed = editing.shuffled(network, Generator().manual_seed(0))
        torch.testing.assert_close(changed[0].weight.flatten().sort().values, W.flatten().sort().values)
        assert not torch.allclose(changed[0].weight, W)
    assert torch.equal(network(x), before)


# What the network itself keeps


def everything_of(network):
    """All that must not change: modes, flags, gradients, places and numbers."""
    state = {f"training {path}": module.training for path, module in network.named_modules()}
    state |= {f"attributes {path}": set(vars(module)) for path, module in network.named_modules()}
    for name, p in network.named_parameters():
        state |= {name: p.detach().clone(), f"{name} learns": p.requires_grad, f"{name} at": (p.dtype, p.device)}
        state[f"{name} grad"] = None if p.grad is None else p.grad.clone()
    return state | {name: buffer.clone() for name, buffer in network.named_buffers()}


def assert_unchanged(network, before):
    after = everything_of(network)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value) if isinstance(value, torch.Tensor) else after[name] == value, name


def trained_by_somebody():
    """In training mode but for one part, one parameter frozen, another with a gradient, with running statistics."""
    network = sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 3))
    network(torch.randn(20, 6, generator=Generator().manual_seed(0))).sum().backward()
    network[1].eval()
    network[0].bias.requires_grad_(False)
    network[0].bias.grad = None
    return network


FAILURES = {
    "no such layer": ({"layers": ["7"]}, ValueError),
    "data that fail": ({"data": lambda n, g: torch.rand(n, 5, generator=g)}, ValueError),
    "a loss that blows up": ({"data": lambda n, g: data(n, g) * (torch.inf if n == 16 else 1)}, FloatingPointError),
    "batches that end": ({"data": lambda n, g: data(0 if n == 16 else n, g)}, ValueError),
    "a layer that is skipped": ({"layers": ["last.skipped"]}, ValueError),
}


@pytest.mark.parametrize("config", [SPD, APD.replace(n_init=2, selection_steps=2)], ids=["spd", "apd"])
def test_the_network_is_given_back_as_it_was(config, tmp_path):
    network = trained_by_somebody()
    before = everything_of(network)
    run = fit(network, config, out=tmp_path / "run")
    assert_unchanged(network, before)
    x = draw(7, 6).float()
    assert torch.equal(run.target(x), copy.deepcopy(network).eval()(x))
    first, again = run.importances(x), run.importances(x)
    assert all(torch.equal(first[use], again[use]) for use in first)
    run.components.train()
    assert torch.equal(run.target(x), copy.deepcopy(network).eval()(x))


@pytest.mark.parametrize("name", FAILURES)
def test_the_network_is_given_back_after_an_error(name):
    options, error = FAILURES[name]
    network = trained_by_somebody()
    network.add_module("last", nn.Identity())
    network.last.skipped = nn.Linear(2, 2)
    before = everything_of(network)
    with pytest.raises(error):
        fit(network, **options)
    assert_unchanged(network, before)


def test_the_network_is_given_back_by_decompose_and_prepare():
    network = trained_by_somebody()
    before = everything_of(network)
    model = pdh.decompose(network, {"0": 3, "2": 3})
    model(draw(5, 6).float()).output.sum().backward()
    assert_unchanged(network, before)
    assert not any(p.requires_grad for p in model.target.parameters())

    toy = pdh.TMS(n_features=5, n_hidden=2)
    before = everything_of(toy)
    settings = {"steps": 3, "n_init": 1, "batch_size": 16, "show_progress": False, "device": "cpu"}
    run = pdh.prepare("spd/tms_5-2", target=toy, **settings)
    assert_unchanged(toy, before)
    run.train(show_progress=False)
    assert_unchanged(toy, before)


def test_dropout_and_batch_norm_are_as_in_evaluation_mode():
    network = trained_by_somebody()
    assert_same(fit(network), fit(copy.deepcopy(network).eval().requires_grad_(False)))


def test_a_frozen_copy_is_not_copied_again_unless_it_was_changed():
    run = fit(sequential())
    again = pdh.decompose(run.target, {"0": 3})
    assert again.target is run.target
    run.target.train()
    assert pdh.decompose(run.target, {"0": 3}).target is not run.target
    assert not pdh.decompose(run.target, {"0": 3}).target.training


# Threads


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.002)  # another thread takes over here
        return x


def in_threads(jobs):
    results = [None] * len(jobs)

    def work(i):
        results[i] = jobs[i]()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_decompose_one_network_as_if_alone():
    network = nn.Sequential(*sequential()[:2], Slow(), *sequential()[2:])
    runs = in_threads([lambda seed=seed: fit(network, layers=["0", "3"], seed=seed) for seed in (1, 2, 3)])
    for seed, run in zip((1, 2, 3), runs, strict=True):
        assert_same(run, fit(network, layers=["0", "3"], seed=seed))
    assert not any("forward" in vars(module) for module in network.modules())


def test_threads_share_one_frozen_copy():
    network = nn.Sequential(*sequential()[:2], Slow(), *sequential()[2:])
    first = pdh.decompose(network, {"0": 3, "3": 3})
    models = [first, *(pdh.decompose(first.target, {"0": 3, "3": 3}, std=1.0 + i) for i in range(3))]
    x, one = draw(5, 6).float(), {"0": torch.ones(5, 3)}  # the other layer keeps the network's own weight
    alone = [model(x, one).output for model in models]
    together = in_threads([lambda model=model: [model(x, one).output for _ in range(5)] for model in models])
    for truth, outputs in zip(alone, together, strict=True):
        assert outputs is not None
        assert all(torch.equal(output, truth) for output in outputs)
    assert not any("forward" in vars(module) for module in first.target.modules())


def test_a_decomposition_can_be_copied():
    run = fit(sequential())
    twin, x = copy.deepcopy(run), draw(5, 6).float()
    assert torch.equal(twin.components(x).output, run.components(x).output)


# Operations in place


class Plain(nn.Module):
    """Written out of place; the classes below compute the same in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.up, self.down = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        h = self.embed(x - 0.5)
        h = F.relu(h + self.up(h))
        return self.down(h)


class AddsInPlace(Plain):
    def forward(self, x):
        h = self.embed(x - 0.5)
        h += self.up(h)
        return self.down(F.relu(h))


class AllInPlace(Plain):
    def forward(self, x):
        x -= 0.5
        h = self.embed(x)
        h += self.up(h)
        return self.down(F.relu_(h))


@pytest.mark.parametrize("config", [SPD, APD], ids=["spd", "apd"])
@pytest.mark.parametrize("network", [AddsInPlace, AllInPlace])
def test_a_network_that_writes_into_its_activations(network, config):
    images = torch.rand(200, 6)
    before = images.clone()

    def rows(n, generator):
        start = int(torch.randint(50, (), generator=generator))
        return images[start : start + n]  # a view, into which the network must not write

    layers = ["embed", "up", "down"]
    in_place, plain = (fit(kind(), config, layers, data=rows) for kind in (network, Plain))
    torch.testing.assert_close(in_place.components.factors, plain.components.factors)  # sums in another order
    assert in_place.metrics["recon"] == pytest.approx(plain.metrics["recon"])
    assert torch.equal(images, before)
    x = images[:5].clone()
    torch.testing.assert_close(in_place.components.entering(x), plain.components.entering(x))
    with torch.inference_mode():
        torch.testing.assert_close(in_place.components(x).output, plain.components(x).output)
        torch.testing.assert_close(in_place.importances(x), plain.importances(x))
    directions = {"up": draw(2, 6, 6).float()}
    torch.testing.assert_close(attributions(network(), x, directions), attributions(Plain(), x, directions))
    assert torch.equal(x, images[:5])
