"""Name rules: every name of a file is renamed, dropped, or left over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    r"""What becomes of the names that a pattern fits as a whole.

    Args:
        pattern (str): Regular expression.
        name (str | Callable, optional): The new name, with ``\1`` ... for
            groups, or a function of the match. Defaults to None: dropped.
        change (Callable, optional): Of the tensor. Defaults to None.
    """

    pattern: str
    name: str | Callable[[re.Match], str] | None = None
    change: Callable[[Tensor], Tensor] | None = None


@dataclass
class Renamed:
    """What became of the names of a file.

    Args:
        tensors (dict[str, Tensor]): By their new names.
        sources (dict[str, str]): Their old names by the new ones.
        dropped (list[str]): Old names that a rule leaves out.
        left (list[str]): Old names that no rule knows.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def apply(rules: Iterable[Rule], named: Mapping[str, Any]) -> Renamed:
    """Rename tensors or arrays by the first rule that fits each.

    Two that get one name: the second is left over.
    """
    compiled = [(re.compile(rule.pattern), rule) for rule in rules]
    result = Renamed()
    for old, value in named.items():
        match, rule = next(
            ((m, rule) for p, rule in compiled if (m := p.fullmatch(old))), (None, None)
        )
        if match is None or rule is None:
            result.left.append(old)
            continue
        if rule.name is None:
            result.dropped.append(old)
            continue
        new = (
            match.expand(rule.name) if isinstance(rule.name, str) else rule.name(match)
        )
        if new in result.tensors:
            result.left.append(old)
            continue
        tensor = as_tensor(value)
        result.tensors[new] = rule.change(tensor) if rule.change else tensor
        result.sources[new] = old
    return result


def as_tensor(value: Any) -> Tensor:
    """Make a tensor of what a file held."""
    if isinstance(value, Tensor):
        return value.detach()
    return torch.from_numpy(value.copy())


def grouped(names: Collection[str]) -> str:
    """List names, those that differ in numbers only as one with their count."""
    counts = Counter(re.sub(r'\d+', '*', name) for name in names)
    single = {re.sub(r'\d+', '*', name): name for name in names}
    return ', '.join(
        f'{pattern} ({count})' if count > 1 else single[pattern]
        for pattern, count in counts.items()
    )
