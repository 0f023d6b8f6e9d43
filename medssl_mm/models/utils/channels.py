"""What a config may leave out, most of all numbers of channels."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.registry import Registry

#: What networks of necks and heads call the channels of the map they get.
#: The hidden channels of a projector are as many, the choice of MoCo v2.
NAMES = ('in_channels', 'num_channels', 'hid_channels')


def with_channels(
    settings: Mapping, channels: Callable[[], int], registry: Registry
) -> dict:
    """Fill in the channels of the map that a module will get.

    Args:
        settings (Mapping): Config of the module.
        channels (Callable): Returns them; called only if need be.
        registry (Registry): Where its type is looked up.

    Returns:
        dict: A copy, with each of ``NAMES`` that the module demands and the
        config leaves out.
    """
    return with_missing(settings, dict.fromkeys(NAMES, channels), registry)


def with_missing(
    settings: Mapping, values: Mapping[str, Callable[[], Any]], registry: Registry
) -> dict:
    """Fill in what a module demands and its config leaves out.

    Args:
        settings (Mapping): Config of the module.
        values (Mapping): By the name of a parameter, what returns its value; called
            only if need be.
        registry (Registry): Where the type is looked up.
    """
    settings = dict(settings)
    parameters = _parameters_of(settings, registry)
    for name, value in values.items():
        wanted = parameters.get(name)
        if wanted is None or wanted.default is not inspect.Parameter.empty:
            continue
        if name not in settings:
            settings[name] = value()
    return settings


def with_defaults(
    settings: Mapping, values: Mapping[str, Any], registry: Registry
) -> dict:
    """Give a module other defaults, where it has such parameters.

    Args:
        settings (Mapping): Config of the module; what it states stays.
        values (Mapping): By the name of a parameter.
        registry (Registry): Where the type is looked up.
    """
    parameters = _parameters_of(settings, registry)
    known = {name: value for name, value in values.items() if name in parameters}
    return {**known, **settings}


def _parameters_of(
    settings: Mapping, registry: Registry
) -> Mapping[str, inspect.Parameter]:
    kind = settings.get('type')
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(None) as scoped:
            kind = scoped.get(kind)
    if kind is None:  # whoever builds it says so
        return {}
    return inspect.signature(kind).parameters
