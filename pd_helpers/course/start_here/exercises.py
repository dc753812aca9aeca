"""The exercise of the first notebook (notebook 00): how long a component is compared with its target."""

import torch
import torch.nn.functional as F

from pd_helpers.course.kit.check import Check, draws

length_ratio = Check(
    "length_ratio",
    lambda p, w: p.norm() / w.norm(),
    lambda: [(torch.tensor([3.0, 4.0]), torch.tensor([5.0, 12.0])), *draws(*3 * [((2,), (2,))])],
    {
        "that is the ratio the wrong way round: divide the component's length by the target's.": lambda p, w: (
            w.norm() / p.norm()
        ),
        "that is the ratio of squared lengths; take the square root.": lambda p, w: (p @ p) / (w @ w),
        "that is the cosine, which compares directions; compare lengths.": lambda p, w: F.cosine_similarity(
            p, w, dim=0
        ),
        "a length is the root of a sum of squares; you added up the absolute values.": lambda p, w: (
            p.abs().sum() / w.abs().sum()
        ),
        "that is the mean ratio of the entries; compare the lengths of the two columns.": lambda p, w: (p / w).mean(),
        "that is the component's length; divide it by the target's.": lambda p, w: p.norm(),
    },
)
