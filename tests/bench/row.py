"""One row of bench.json."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median


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
