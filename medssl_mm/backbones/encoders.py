"""Which encoder of a pretraining checkpoint: that which learns, or its copy."""

from collections.abc import Collection

from medssl_mm.errors import UserError

ONLINE, TARGET = ENCODERS = ('online', 'target')
BYOL = 'target_net.module.0.'
#: What stands before the backbone's names in the slow copy of the encoder.
TARGET_PREFIXES = (
    BYOL,  # mmselfsup and this package
    'encoder_k.module.0.',  # MoCo of these
    'module.encoder_k.',  # MoCo
    'encoder_k.',
    'module.momentum_encoder.',  # MoCo v3
    'teacher.backbone.',  # DINO-like
)


def target_prefix(names: Collection[str]) -> str:
    """Return what stands before the slow copy's names, '' without a copy.

    Args:
        names (Collection[str]): Of all tensors of a checkpoint.
    """
    return next(
        (p for p in TARGET_PREFIXES if any(name.startswith(p) for name in names)), ''
    )


def choose_encoder(names: Collection[str], asked: str | None, source: str) -> str:
    """Say which encoder of a checkpoint is to be taken.

    That which is asked for; without a wish the target of BYOL, which that
    method evaluates, else the online encoder.

    Args:
        names (Collection[str]): Of all tensors of a checkpoint.
        asked (str, optional): 'online' or 'target'.
        source (str): Name of the checkpoint for the message.

    Raises:
        UserError: Another wish, or a target where there is none.
    """
    if asked not in (None, *ENCODERS):
        raise UserError(f'encoder must be "online" or "target", got {asked!r}')
    prefix = target_prefix(names)
    if asked == TARGET and not prefix:
        raise UserError(
            f'{source} holds no target encoder (no name starts with '
            f'{", ".join(TARGET_PREFIXES[:3])}, ...); leave encoder="target" out'
        )
    return asked or (TARGET if prefix == BYOL else ONLINE)
