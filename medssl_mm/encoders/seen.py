"""What the weights of an encoder have seen, read without building it."""

from __future__ import annotations

from medssl_mm.engine.seen import seen_in_file
from medssl_mm.errors import UserError
from medssl_mm.provenance import Seen

from .settings import EncoderSource, exported


def seen_by(source: EncoderSource) -> Seen:
    """Read what the weights of an encoder have seen.

    Args:
        source (EncoderSource): A file, an export, or random weights.

    Returns:
        Seen: Of published weights it is not known; the sets that they were
        trained on, where these are, stand beside their name.
    """
    path = source.path
    if path is None:
        return Seen()
    if path.is_dir():
        return exported().read_seen(path)
    try:
        found = seen_in_file(path)
    except UserError:  # a file of TensorFlow, say: its converter reads it
        found = Seen(unknown=(path.name,))
    sets = ', '.join(source.settings.trained_on)
    if found.unknown == (path.name,) and sets:
        return Seen(unknown=(f'{path.name} (trained on {sets})',))
    return found
