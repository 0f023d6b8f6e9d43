"""Small image sets and transfer tables."""

from pathlib import Path

import yaml

from medssl_mm import experiments
from medssl_mm.experiments import frozen
from medssl_mm.store import open_store
from medssl_mm.store.splits import Split, save_split
from tests.datasets.images import write_image_set

PROTOCOLS = [
    dict(kind='few_shot', shots=3, queries=2, episodes=20),
    dict(kind='knn', k=3),
    dict(kind='linear', costs=[1.0, 0.01]),
]


def write_set(root, **settings):
    """Sixteen patients of three images: four are tested, two validate."""
    write_image_set(root, patients=16, each=3, channels=3, **settings)
    (root / 'splits' / 'made.json').unlink()
    parts = dict.fromkeys(['p0', 'p1', 'p2', 'p3'], 'test') | {'p4': 'val', 'p5': 'val'}
    subsets = {'train': [], 'val': [], 'test': []}
    for image in open_store(root, 'classification').image_ids:
        subsets[parts.get(image.partition('-')[0], 'train')].append(str(image))
    save_split(root, Split('made', root.name, subsets))


def write_table(folder, **more):
    content = dict(
        encoders=[
            dict(
                name='a', encoder='small.py', checkpoint='small.pth', trained_on=['one']
            ),
            dict(name='r', encoder='random:small.py', title='nothing learnt'),
        ],
        datasets=[
            dict(name='one', data_root='one', split='made', domain='in'),
            dict(name='two', data_root='two', split='made', domain='out'),
        ],
        protocols=PROTOCOLS,
        baseline='r',
        bootstrap=50,
        runs_dir='runs',
        cache='cache',
    )
    path = folder / 'table.yaml'
    path.write_text(yaml.safe_dump({**content, **more}), encoding='utf-8')
    return path


def plan(path, *parts, **more):
    return experiments.plan_transfer(experiments.load_transfer(path, *parts, **more))


def run_here(planned):
    """What the processes do, in this one."""
    planned.write_tasks()
    for step in planned.steps.values():
        frozen.run_task(Path(step.command[-1]), lambda line: None)
