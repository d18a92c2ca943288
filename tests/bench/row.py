"""One row of bench.json, and what measures it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch

CLOSE = 1e-4


@dataclass
class Row:
    """ours and peer in `unit`, and their ratio, which is to be `sense` ("<=" or ">=") the budget.

    runs is how often each was measured; more holds further numbers by their keys in bench.json. Where there is no peer,
    `peer` is None and `ratio` the budgeted number itself.
    """

    name: str
    ours: float
    peer: float | None
    ratio: float
    unit: str
    sense: str
    budget: float
    holds: bool
    runs: int
    more: dict[str, float] = field(default_factory=dict)


def compared(name: str, ours: list[float], peer: list[float], unit: str, sense: str, budget: float) -> Row:
    """The row of two series of costs ("<=") or speeds (">="); the medians count."""
    ratio = median(ours) / median(peer)
    holds = ratio <= budget if sense == "<=" else ratio >= budget
    return Row(name, median(ours), median(peer), ratio, unit, sense, budget, holds, len(ours))


def paired(runs: int, ours: Callable[[], float], peer: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Both measured in turn, so that whatever else the machine does meets both; the first run warms up as well."""
    pairs = [(ours(), peer()) for _ in range(runs)]
    return [it[0] for it in pairs], [it[1] for it in pairs]


def seconds(work: Callable[[], object]) -> float:
    with torch.inference_mode():
        began = time.perf_counter()
        work()
        return time.perf_counter() - began


def check_same(ours: torch.Tensor, peer: torch.Tensor, what: str):
    """Raise ArithmeticError where two outputs are not the same up to rounding."""
    distance = float((ours - peer).norm() / peer.norm())
    if not distance <= CLOSE:
        raise ArithmeticError(f"{what}: ours is {distance:.1e} off the peer's, and {CLOSE} would be rounding")
