"""The experiments that the configs describe, by name.

A config file stands for itself; an experiment that is a config put on other
data is known by the name of the file that it once was.
"""

from dataclasses import dataclass
from pathlib import Path

from medssl_mm.engine.launch import load_config
from medssl_mm.engine.reading import moved_configs

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
# Encoders describe networks, no experiments.
NO_LEAVES = ('_base_', 'data', 'encoders')


@dataclass(frozen=True)
class Experiment:
    """What tools/train.py takes, and how it is called in tests."""

    name: str  # path below configs, without .py
    config: str
    options: tuple[str, ...] = ()

    @property
    def stem(self):
        return self.name.rpartition('/')[2]

    def load(self, **options):
        pairs = [f'{key}={value}' for key, value in options.items()]
        return load_config(self.config, [*self.options, *pairs])


def leaves(folder=''):
    return [
        path
        for path in sorted((CONFIGS / folder).rglob('*.py'))
        if not set(NO_LEAVES) & set(path.parts) and path.name != 'default_runtime.py'
    ]


def experiments(folder=''):
    """Leaves, and what was a leaf once and is now a leaf on other data."""
    found = [
        Experiment(
            path.relative_to(CONFIGS).with_suffix('').as_posix(),
            str(path),
        )
        for path in leaves(folder)
    ]
    for former, now in moved_configs(CONFIGS / 'README.md').items():
        if former.startswith(folder):
            config, _, options = now.partition(' --cfg-options ')
            found.append(
                Experiment(former, str(CONFIGS / config), tuple(options.split()))
            )
    return found
