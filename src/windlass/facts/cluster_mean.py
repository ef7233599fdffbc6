"""The mean over many tokens, with an error bar that knows that tokens of one window stand and fall together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterMean:
    """`error` is the standard error of `mean`; None where there is one cluster, which shows no spread."""

    mean: float
    error: float | None


def cluster_mean(sums: Sequence[float], counts: Sequence[int]) -> ClusterMean:
    """The mean of all members of clusters that have `counts` members, 1 at least, which add up to `sums`.

    The error is that of a ratio whose clusters are drawn, not its members (Cochran, "Sampling techniques", 1977,
    chapter 6): for clusters of one size the spread of their means over the root of how many there are.
    """
    clusters, members = len(sums), sum(counts)
    mean = math.fsum(sums) / members
    if clusters < 2:
        return ClusterMean(mean, None)
    squares = math.fsum((total - mean * count) ** 2 for total, count in zip(sums, counts, strict=True))
    return ClusterMean(mean, math.sqrt(squares * clusters / (clusters - 1)) / members)
