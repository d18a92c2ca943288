"""One row of bench.json, and what measures it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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
    """The row of two series of costs ("<=") or speeds (">="), of which each pair was measured at about one time.

    The median of the pairs' ratios counts: a machine that is shared is slower now and faster then.
    """
    ratio = median(one / other for one, other in zip(ours, peer, strict=True))
    holds = ratio <= budget if sense == "<=" else ratio >= budget
    return Row(name, median(ours), median(peer), ratio, unit, sense, budget, holds, len(ours))


def paired(runs: int, ours: Callable[[], float], peer: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Both measured in turn, so that whatever else the machine does meets both; the first run warms up as well.

    Each is the first of every other pair: a machine that slows down or leaves work behind does so for both.
    """
    found = [], []
    for index in range(runs):
        for which in (0, 1) if index % 2 else (1, 0):
            found[which].append((ours, peer)[which]())
    return found


def in_turns(ours: Callable[[Callable], object], peer: Callable[[Callable], object]) -> list[list[float]]:
    """Seconds of each piece of both, two long works that hand over to one another at each step.

    Each is called with the function to call after a step, and both have as many. The speed of a shared machine changes
    from second to second by more than what is to be measured.
    """
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    ended = threading.Event()

    def pieces(work, own, other):
        taken = []

        def hand_over():
            nonlocal began
            taken.append(time.perf_counter() - began)
            other.release()
            if not ended.is_set():
                own.acquire()
            began = time.perf_counter()

        own.acquire()
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                work(hand_over)
        finally:
            ended.set()
            hand_over()
        return taken

    with ThreadPoolExecutor(2) as pool:
        works = [pool.submit(pieces, ours, *turns), pool.submit(pieces, peer, *reversed(turns))]
        return [it.result() for it in works]


def overhead(name: str, both, runs: int) -> Row:
    """The row of what the pack adds to a whole run: the sum of the medians of each piece of both.ours and both.peer."""
    found = zip(*(in_turns(both.ours, both.peer) for _ in range(runs)), strict=True)
    whole = ([sum(median(piece) for piece in zip(*it, strict=True))] for it in found)
    both.check()
    return replace(compared(name, *whole, "s", "<=", 1.02), runs=runs)


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
