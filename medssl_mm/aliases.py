"""Config types and arguments of before, and what stands for them now."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medssl_mm.errors import UserError

PREFIX = 'medssl_mm.'


@dataclass(frozen=True)
class Alias:
    """One type of before.

    Args:
        old (str): Its name.
        new (str): Name of the type that takes its place.
        argument (str): Only configs that gave it this argument are meant; it
            was None otherwise. Defaults to '': all of them.
        value (str): ... with this value. Defaults to ''.
        kept (tuple[str, ...]): Other arguments that still count. Defaults to
            none.
    """

    old: str
    new: str
    argument: str = ''
    value: str = ''
    kept: tuple[str, ...] = ()


ALIASES = (
    Alias(
        'DecorrelationHead',
        'ReleaseDecorrelation',
        'legacy',
        'bn3',
        kept=('num_channels', 'init_cfg'),
    ),
    Alias('LocalInfoNCELoss', 'ReleaseLocalLoss', 'legacy', 'release'),
    # They process images as well as slices.
    Alias('RandomSliceAffine', 'RandomAffineView'),
    Alias('RandomSliceCrop', 'RandomCropView'),
    Alias('ResizeSlice', 'ResizeAndPad'),
    Alias('SliceSampler', 'ResumableSampler'),
    Alias('SliceViews', 'CropViews'),
)


def current_name(
    name: str, notice: Callable[[str], None], aliases: tuple[Alias, ...] = ALIASES
) -> str:
    """Replace the name of a type that has another one now.

    Args:
        name (str): Without prefix.
        notice (Callable): Takes the message.
        aliases (tuple[Alias, ...]): The table. Defaults to that above.
    """
    for alias in aliases:
        if alias.old == name and not alias.argument:
            notice(f'{PREFIX}{name} is called {PREFIX}{alias.new} now')
            return alias.new
    return name


def current_settings(
    settings: Mapping,
    notice: Callable[[str], None],
    aliases: tuple[Alias, ...] = ALIASES,
) -> Mapping:
    """Replace a type whose arguments of before chose another one.

    Args:
        settings (Mapping): Config of a module; not changed.
        notice (Callable): Takes the message.
        aliases (tuple[Alias, ...]): The table. Defaults to that above.

    Raises:
        UserError: When the argument has a value that it never had.
    """
    kind = settings.get('type')
    name = kind.removeprefix(PREFIX) if isinstance(kind, str) else ''
    for alias in aliases:
        if alias.old != name or alias.argument not in settings:
            continue
        settings = dict(settings)
        value = settings.pop(alias.argument)
        if value is None:
            return settings
        if value != alias.value:
            raise UserError(
                f'{kind}: {alias.argument} was None or {alias.value!r}, got '
                f'{value!r}; leave it out'
            )
        notice(f'{kind} with {alias.argument}={value!r} is {PREFIX}{alias.new} now')
        kept = {name: settings[name] for name in alias.kept if name in settings}
        return dict(type=f'{PREFIX}{alias.new}', **kept)
    return settings


def with_former_names(settings: Any, aliases: tuple[Alias, ...] = ALIASES) -> Any:
    """Copy a config with the names that types had before, as old digests need it.

    Args:
        settings: Mappings, lists and values.
        aliases: The table.
    """
    former = {
        PREFIX + alias.new: PREFIX + alias.old
        for alias in aliases
        if not alias.argument
    }

    def copied(value: Any, key: str = '') -> Any:
        if isinstance(value, Mapping):
            return {name: copied(inner, name) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(map(copied, value))
        return former.get(value, value) if key == 'type' else value

    return copied(settings)
