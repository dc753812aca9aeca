"""Exercises on comparing APD with SPD (notebook 16): two measures, components without gradients, and judgement."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_helpers.course.kit.check import Check, draws, judgement


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    return (a @ b) / (a.norm() * b.norm())


def _ranks(v: Tensor) -> Tensor:
    return v.argsort().argsort().float()


def _rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    return _pearson(_ranks(a), _ranks(b))


rank_correlation = Check(
    "rank_correlation",
    _rank_correlation,
    lambda: [
        (torch.tensor([30.0, 1.0, 2.0, 5.0]), torch.tensor([1.0, 9.0, 2.0, 4.0])),
        *draws(*(2 * [(n,)] for n in (9, 5, 12))),
    ],
    {
        "that is the correlation of the values; correlate their ranks.": _pearson,
        "argsort says where each rank is found, not which rank each value has; apply argsort to its result again.": (
            lambda a, b: _pearson(a.argsort().float(), b.argsort().float())
        ),
        "the sign is wrong: one of your two rankings is in descending order.": lambda a, b: -_rank_correlation(a, b),
        "that is the sum of products; divide by the lengths of both.": lambda a, b: (
            (_ranks(a) - _ranks(a).mean()) @ (_ranks(b) - _ranks(b).mean())
        ),
        "subtract the mean rank first; you took the cosine of the ranks themselves.": lambda a, b: F.cosine_similarity(
            _ranks(a), _ranks(b), dim=0
        ),
    },
)


def _separation(estimate: Tensor, matters: Tensor) -> Tensor:
    lead = estimate[matters][:, None] - estimate[~matters][None]
    return ((lead > 0).float() + 0.5 * (lead == 0).float()).mean()


def _estimates() -> tuple[tuple[Tensor, Tensor], ...]:
    small = torch.tensor([0.5, 0.1, 0.5, 0.9]), torch.tensor([False, False, True, True])
    random = draws(*(2 * [(n,)] for n in (10, 6, 15, 12)), uniform=True)
    return (small, *(((4 * values).round() / 4, selector < 0.4) for values, selector in random))


separation = Check(
    "separation",
    _separation,
    _estimates,
    {
        "each tie counts as half a win; you do not count ties.": lambda e, m: (
            (e[m][:, None] > e[~m][None]).float().mean()
        ),
        "each tie counts as half a win; you count it as a whole one.": lambda e, m: (
            (e[m][:, None] >= e[~m][None]).float().mean()
        ),
        "the pairs are the wrong way round: components that matter should win.": lambda e, m: 1 - _separation(e, m),
        "compare components that matter with those that do not, and not with all components.": lambda e, m: (
            (e[m][:, None] > e[None]).float() + 0.5 * (e[m][:, None] == e[None]).float()
        ).mean(),
        "that is a number of pairs; divide by the number of all pairs.": lambda e, m: (
            _separation(e, m) * m.sum() * (~m).sum()
        ),
        "only pairs with one component that matters and one that does not count; divide by their number.": (
            lambda e, m: _separation(e, m) * m.sum() * (~m).sum() * 2 / (len(m) * (len(m) - 1))
        ),
    },
)


def _starved(sizes: Tensor) -> Tensor:
    return (sizes == 0).all(dim=0)


starved = Check(
    "starved",
    _starved,
    lambda: [
        (torch.tensor([[0.0, 0.001, 2.0], [0.0, 0.0, 0.0]]),),
        *(
            (scale * values * (values > 0.6) * (torch.arange(values.shape[1]) % 3 > 0),)
            for (values,), scale in zip(draws([(8, 8)], [(4, 6)], [(5, 3)], uniform=True), (1, 1e-5, 100), strict=True)
        ),
    ],
    {
        "those components had no gradient at *some* point; find those that had none at *any* point.": lambda sizes: (
            sizes == 0
        ).any(dim=0),
        "those are the components that had a gradient at some point; the answer is the others.": lambda sizes: (
            sizes > 0
        ).any(dim=0),
        "you return one value for each point in training; return one for each component, with dim=0.": lambda sizes: (
            sizes == 0
        ).all(dim=1),
        "a gradient may be small and still be one; find those that are exactly 0 at every point.": lambda sizes: (
            sizes.amax(dim=0) < 0.01
        ),
        "look at all points of training, and not at the last one only.": lambda sizes: sizes[-1] == 0,
        "look at all points of training, and not at the first one only.": lambda sizes: sizes[0] == 0,
    },
)


HOLDS, FAILS, OPEN = 1, 2, 3

weighed = judgement(
    "weighed",
    {1: FAILS, 2: HOLDS, 3: FAILS, 4: OPEN, 5: HOLDS},
    {
        1: {
            HOLDS: "statement 1: the sums of notebook 08 are faithful, and yet features lie in two components each "
            "with the same neurons; two halves add up to a whole as well as one whole does.",
            OPEN: "statement 1: notebook 08 did look, at features that are split over two components although the sum "
            "is faithful.",
        },
        2: {
            FAILS: "statement 2: notebook 09 computed the price of each component as it is and with all its neurons in "
            "one layer; look which is higher.",
            OPEN: "statement 2: notebook 09 did measure it, on the components of the two-layer network.",
        },
        3: {
            HOLDS: "statement 3: compare the rows of the first table on this page for 5 and for 40 features; on which "
            "of them are more of the values of top-k good?",
            OPEN: "statement 3: this page varied top-k by the same factors on 5 and on 40 features.",
        },
        4: {
            HOLDS: "statement 4: in all of our targets features are independent and treated alike, so none has "
            "directions that lie close for a reason; nothing here was able to show it.",
            FAILS: "statement 4: nothing here speaks against it; no target of ours has features that belong together.",
        },
        5: {
            FAILS: "statement 5: count the numbers; a component of full rank holds as many as the network, a piece of "
            "rank one d_in + d_out.",
            OPEN: "statement 5: no experiment is needed, only counting: of what size are a component of full rank and "
            "a piece of rank one?",
        },
    },
)


_PRUNING, _CIRCUITS, _QUANTA, _EXPERTS, _SINGULAR = 1, 2, 3, 4, 5
_METHODS = {
    _PRUNING: "masks learn a factor for each weight or unit as it stands",
    _CIRCUITS: "circuit discovery is handed a task and a graph of given parts",
    _QUANTA: "quanta are clusters of inputs by their gradients",
    _EXPERTS: "experts are built into the network and chosen by a gate that is trained with it",
    _SINGULAR: "singular learning theory measures how degenerate the weights are over all the data",
}
_KINSHIP = {1: _QUANTA, 2: _EXPERTS, 3: _SINGULAR, 4: _PRUNING, 5: _CIRCUITS}
_HINTS = {
    1: "finds groups but takes no weights apart",
    2: "decides before the part runs",
    3: "finds a number and not parts",
    4: "keeps to the axes that the weights happen to have",
    5: "needs somebody to say which behaviour is wanted",
}

kinship = judgement(
    "kinship",
    _KINSHIP,
    {
        i: {
            method: f"{fact}; statement {i} is about one that {_HINTS[i]}."
            for method, fact in _METHODS.items()
            if method != right
        }
        for i, right in _KINSHIP.items()
    },
)
