"""What encoders have seen of the images that they are about to be scored on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from medssl_mm.provenance import TEST, VALIDATION, join_facts, require_unseen, sentences

if TYPE_CHECKING:
    from .extract import EncoderFeatures
    from .subsets import Subset
    from .weights import Weights


def compare_seen(
    source: EncoderFeatures,
    checkpoints: Iterable[Weights],
    tested: Sequence[Subset],
    validated: Sequence[Subset] = (),
    allow: bool = False,
) -> dict[str, dict[str, Any]]:
    """Compare images with what encoders have seen; say what is found.

    Args:
        source (EncoderFeatures): Of the images.
        checkpoints (Iterable[Weights]): Of the encoders.
        tested (Sequence[Subset]): What is scored.
        validated (Sequence[Subset]): What settings are chosen on. Defaults to ().
        allow (bool): Whether to go on where an encoder was trained on them.
            Defaults to False.

    Returns:
        dict: Facts for the result by source of the weights, see
        :func:`medssl_mm.provenance.sentences`.

    Raises:
        UserError: An encoder was trained on images that are scored, chosen by
            them, or pretrained on images that their split keeps apart.
    """
    # Late: the help of the tools that import this must not wait for torch.
    from medssl_mm.engine.seen import cases_of

    parts = [(TEST, c) for subset in tested for c in cases_of(subset.dataset)[0]]
    parts += [
        (VALIDATION, c) for subset in validated for c in cases_of(subset.dataset)[0]
    ]
    facts = {}
    for weights in checkpoints:
        seen = source.encoder(weights).seen
        found = [
            (role, require_unseen(seen, cases, weights.source, role, allow))
            for role, cases in parts
        ]
        joined = join_facts([one for role, one in found if role == TEST])
        if not joined:
            if seen.shown:
                source.note(
                    f'{weights.name}: not compared with what it has seen: the images '
                    'are of no image set, so they have no digests'
                )
            continue
        facts[weights.source] = joined
        lines = sentences(joined)
        for role, one in found:
            if role != TEST:
                lines += sentences(one, unknown=False)
        for line in lines:
            source.note(f'{weights.name}: {line}')
    return facts
