"""Runs that tests make in one process and in several, in one part and in several; `python shared.py` makes them all."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pd_helpers as pdh
from pd_helpers.core.machine.ranks import end
from pd_helpers.runs import evaluation

SPD = pdh.SPDConfig(C=5, d_gate=4, steps=20, batch_size=10, lr=0.01, importance_coeff=0.1)
APD = pdh.APDConfig(C=5, steps=20, batch_size=10, lr=0.01, top_k=2.0, warmup_fraction=0.0)


class MLP(nn.Module):
    """Two layers; without biases, all-zero inputs stay zero."""

    def __init__(self, bias=True):
        super().__init__()
        self.up, self.down = nn.Linear(3, 4, bias=bias), nn.Linear(4, 2, bias=bias)

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


class Sequence(nn.Module):
    """Tokens and positions; the rows of `position` are the same for all inputs, and those of `down` are flattened."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(7, 6), nn.Embedding(4, 6)
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 7)

    def forward(self, tokens):
        h = self.token(tokens) + self.position(torch.arange(tokens.shape[1])).unsqueeze(0)
        h = torch.tanh(self.up(h.cumsum(dim=1)))
        return self.down(h.flatten(0, 1)).unflatten(0, tokens.shape)


def of(network, dtype=torch.float64, **settings):
    """The network with numbers that are always the same."""
    torch.manual_seed(0)
    return network(**settings).to(dtype)


def mixing():
    """A network whose answer to an input depends on the others of its batch."""
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False))


def dense(n, generator):
    return torch.randn(n, 3, generator=generator, dtype=torch.float64)


def sparse(n, generator):
    """Most inputs are all zero."""
    return dense(n, generator) * (torch.rand(n, 3, generator=generator) < 0.15)


def tokens(n, generator):
    return torch.randint(7, (n, 4), generator=generator)


def loader():
    """Batches of four, four and three inputs, with labels."""
    x = dense(11, torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, torch.arange(11)), batch_size=4, shuffle=True)


LAYERS = ["token", "position", "up", "down"]
CASES = {
    "spd": lambda: (of(MLP), SPD, dense),
    "spd, most inputs zero": lambda: (of(MLP, bias=False), SPD.replace(batch_size=30), sparse),
    "spd, positions": lambda: (of(Sequence), SPD.replace(output_loss="kl"), tokens, LAYERS),
    "spd, loader, two initialisations": lambda: (of(MLP), SPD.replace(n_init=2, selection_steps=8), loader()),
    "spd, float32": lambda: (of(MLP, torch.float32), SPD, lambda n, generator: dense(n, generator).float()),
    "apd": lambda: (of(MLP), APD, dense),
    "apd, most inputs zero": lambda: (of(MLP, bias=False), APD.replace(batch_size=30, top_k=0.7), sparse),
    "apd, positions": lambda: (of(Sequence), APD.replace(hidden_coeff=0.3), tokens, ["up"]),
    "apd, Lp": lambda: (of(MLP), APD.replace(attribution_p=1.0), dense),
}


def fitted(case, micro_batches=1, steps=20, **options):
    """The run of one case."""
    network, config, data, *layers = CASES[case]()
    layers = layers[0] if layers else ["up", "down"]
    config = config.replace(micro_batches=micro_batches, steps=steps)
    return pdh.fit(network, config, data, layers, show_progress=False, **options)


def numbers(run):
    """Name → all numbers of its history, and its metrics."""
    return run.history.to_dict("list") | {"recon at the end": [run.metrics["recon"]]}


def refusals(rank):
    """What must be refused on all ranks, though something is wrong on rank 1 alone, or only rank 0 notices."""
    torch.manual_seed(rank)
    unseeded = MLP().double()
    attempts = {
        "folder": lambda: fitted("spd", out="full"),
        "network": lambda: pdh.fit(unseeded, SPD, dense),
        "data": lambda: pdh.fit(of(MLP), SPD, lambda n, generator: dense(n, generator) + rank),
        "configuration": lambda: pdh.fit(of(MLP), SPD.replace(lr=0.01 * (1 + rank)), dense),
        "kind of data": lambda: pdh.fit(of(MLP), SPD, 5 if rank else dense),
        "batch_size": lambda: pdh.fit(of(MLP), SPD.replace(batch_size=1), dense),
        "mixing": lambda: pdh.fit(of(mixing), SPD, dense, ["0"]),
        "sweep": lambda: pdh.sweep("spd/tms_5-2", {"seed": [1]}),
        "resume": lambda: pdh.resume("nowhere"),
    }
    messages = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except (TypeError, ValueError) as error:
            messages[name] = str(error)
    return messages


if __name__ == "__main__":
    evaluation.N_EVALUATION = 1024
    rank = int(os.environ["RANK"])
    runs = {case: numbers(fitted(case, 1 + (case == "spd, positions"))) for case in CASES}
    folder = fitted("apd", out="fitted").save("saved")
    Path(sys.argv[1], f"{rank}.json").write_text(
        json.dumps({"runs": runs, "saved": str(folder), "refusals": refusals(rank)})
    )
    end(0)
