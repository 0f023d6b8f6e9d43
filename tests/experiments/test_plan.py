"""The steps of a table, and their folders."""

from dataclasses import replace
from pathlib import Path

import pytest

from medssl_mm import experiments
from medssl_mm.errors import UserError
from medssl_mm.experiments.checkpoints import checkpoint_for
from tests.experiments.conftest import TABLE, plan, resolve

TABLES = Path(__file__).parents[2] / 'configs/tables'
KEYS = [
    'pretrain-moco-seed0-473e8e37',
    'train-linear-moco-100pct-seed0-dad06970',
    'train-linear-moco-50pct-seed0-4ce8e390',
    'test-linear-moco-100pct-seed0-5aac6066',
    'test-linear-moco-50pct-seed0-3b282fc8',
]
# Folders that the results in docs/results.md were computed in.
# The first two changed: their networks are dilated as they were pretrained, and
# pretraining mirrors no slices any more, so what was finished does not count; of the
# first the last weights are tested where few patients are labelled.
PUBLISHED = {
    'acdc20': '4fd4527b2c42',
    'curvas14': '3198349fd9d2',
    'nih1000': '5f78af09f63a',
    'pneumoniamnist': '54876f213498',
}


def test_steps_are_shared_and_ordered(table):
    steps, results = plan(table)
    kinds = [step.kind for step in steps.values()]
    # 2 pretrainings serve both fractions; 2 rows x 2 fractions x 2 seeds.
    assert kinds == ['pretrain'] * 2 + ['train'] * 8 + ['test'] * 8
    seen = set()
    for step in steps.values():
        assert set(step.needs) <= seen
        seen.add(step.key)
    assert [(run.label, run.fraction, len(run.folders)) for run, _ in results] == [
        ('random init', 1.0, 2),
        ('MoCo', 1.0, 2),
        ('random init', 0.5, 2),
        ('MoCo', 0.5, 2),
    ]


def test_row_with_evaluations_and_options_of_its_own(tmp_path):
    path = tmp_path / 'toy.yaml'
    path.write_text(
        TABLE.replace(
            'title: random init}',
            ('title: random init, evaluations: [deep], evaluation_options: {lr: 2}}'),
        )
        + ('  - {name: deep, config: deep.py, options: {lr: 1, size: 9}}\n')
    )
    steps, results = plan(experiments.load_table(path))
    found = {(run.group, run.label) for run, _ in results}
    assert found == {('deep', 'random init'), ('deep', 'MoCo'), ('linear', 'MoCo')}
    rates = {
        (step.options['lr'], step.options['size'], '-random-' in key)
        for key, step in steps.items()
        if step.config == 'deep.py'
    }
    assert rates == {(2, 9, True), (1, 9, False)}
    assert all(
        'lr' not in step.options for step in steps.values() if step.config != 'deep.py'
    )


def test_fraction_uses_the_seed_and_full_data_none(table):
    steps, _ = plan(table)
    options = {
        (step.seed, str(step.options))
        for step in steps.values()
        if step.kind == 'train'
    }
    name = 'train_dataloader.dataset.fraction'
    assert options == {
        (seed, str(extra))
        for seed in (0, 1)
        for extra in ({}, {name: 0.5, f'{name}_seed': seed})
    }


def test_few_labels_are_not_chosen_for_by_many_others(table):
    """Their last weights are tested; the folders of the others stay."""
    few = replace(table, last_weights_below=0.75)
    steps, _ = plan(few)
    for step in steps.values():
        if step.kind == 'pretrain':
            continue
        without = '-50pct-' in step.key
        assert ('val_dataloader' in step.options) == without
        assert step.options.get('val_cfg', 'kept') == (None if without else 'kept')
        assert without or step.key in plan(table)[0]
    assert 'With 50 % of the labelled training patients the last' in few.choice
    assert not table.choice and not replace(few, validation=False).choice
    assert not replace(few, fractions=(1.0,)).choice


def test_folders_of_a_table_without_splits_stay(table):
    """Else finished tables would be computed anew."""
    keys = [
        step.key
        for step in plan(table)[0].values()
        if '-moco-' in step.key and step.seed == 0
    ]
    assert keys == KEYS


def test_cross_validation_does_everything_on_every_split(table):
    table = replace(table, splits=('fold0', 'fold1'), fractions=(1.0,))
    steps, results = plan(table)
    kinds = [step.kind for step in steps.values()]
    # 2 seeds x 2 splits; 2 rows besides for training and test.
    assert kinds == ['pretrain'] * 4 + ['train'] * 8 + ['test'] * 8
    for step in steps.values():
        name = next(n for n in table.splits if f'-{n}-' in step.key)
        assert name in step.title
        loaders = ('train',) if step.kind == 'pretrain' else ('train', 'val', 'test')
        assert step.options == {
            f'{loader}_dataloader.dataset.split': name for loader in loaders
        }
        # Weights, and what is tested, come from the same split and seed.
        for key in step.needs:
            assert f'-{name}-seed{step.seed}-' in key
    for run, tests in results:
        assert [len(keys) for keys in tests] == [2, 2]
        assert len(set(run.folders)) == 2
        assert not set(run.folders) & {s.folder for s in steps.values()}
    # The folders of a split do not depend on the others.
    alone, results = plan(experiments.select(table, splits=['fold1']))
    assert set(alone) == {key for key in steps if '-fold1-' in key}
    for run, tests in results:
        assert run.folders == tuple(steps[key].folder for (key,) in tests)


def test_splits_go_where_the_table_says(table):
    table = replace(
        table,
        splits=('a',),
        split_options={'pretrain': ('x.split',), 'evaluation': ('y.split', 'z.split')},
    )
    options = {
        step.kind: step.options
        for step in plan(table)[0].values()
        if '100pct' in step.key or step.kind == 'pretrain'
    }
    assert options == {
        'pretrain': {'x.split': 'a'},
        'train': {'y.split': 'a', 'z.split': 'a'},
        'test': {'y.split': 'a', 'z.split': 'a'},
    }


def test_evaluations_tell_their_baseline_and_length(tmp_path):
    path = tmp_path / 'toy.yaml'
    entry = '  - {name: deep, config: deep.py, %s}\n'
    path.write_text(TABLE + entry % 'compared_with: linear, iterations: 40')
    table = experiments.load_table(path)
    linear, _, deep, _ = (
        run for run, _ in plan(experiments.select(table, seeds=[1], fractions=[1.0]))[1]
    )
    assert deep.compared_with == linear.group and deep.iterations == 40
    assert linear.compared_with is linear.iterations is None and deep.seeds == (1,)
    path.write_text(TABLE + entry % 'compared_with: linaer')
    with pytest.raises(UserError, match="deep: compared_with.*'linaer'.*'linear'"):
        experiments.load_table(path)


def test_config_that_reads_another_split_is_refused(table):
    def leaky(config, options):
        return {'custom_hooks': [{'dataset': {'split': 'holdout'}}]}

    experiments.plan(table, leaky)  # its own split is the config's business
    with pytest.raises(
        UserError,
        match=r'pretrain\.py|linear\.py'
        r".*'holdout' at custom_hooks\.0\.dataset\.split",
    ):
        experiments.plan(replace(table, splits=('fold0',)), leaky)


# Rows and evaluations that came later have folders of their own.
LATER = {
    'acdc20': ('handmade',),
    'curvas14': ('random-identity', 'handmade'),
    'nih1000': ('random-identity',),
    'pneumoniamnist': (
        'random-identity',
        'simclr',
        'simclr-local',
        'byol',
        'byol-local',
        'byol-soft-decorrelation',
        'byol-whitened-projection',
    ),
}
# Of the results that were published.
SEEDS = dict(
    acdc20=[0, 1, 2], curvas14=[0], nih1000=[0, 1, 2], pneumoniamnist=[0, 1, 2]
)
LATER_EVALUATIONS = (
    'linear-stages',
    'linear-stage1',
    'linear-stage2',
    'linear-stage3',
)


def folder_names(path):
    """Digest of the names of all step and result folders of a table."""
    import hashlib

    table = experiments.load_table(path)
    rows = [row.name for row in table.rows if row.name not in LATER[path.stem]]
    evaluations = [e.name for e in table.evaluations if e.name not in LATER_EVALUATIONS]
    steps, results = experiments.plan(
        experiments.select(table, rows, evaluations, SEEDS[path.stem])
    )
    names = sorted(steps) + sorted(
        folder.name for run, _ in results for folder in run.folders
    )
    return hashlib.sha256('\n'.join(names).encode()).hexdigest()[:12]


@pytest.mark.parametrize('name', PUBLISHED)
def test_folders_of_the_published_tables_stay(name, monkeypatch):
    """Else finished tables would be computed anew; see KEYS."""
    monkeypatch.chdir(TABLES.parents[1])
    assert folder_names(TABLES / f'{name}.yaml') == PUBLISHED[name]


def test_training_of_another_evaluation_has_its_title(tmp_path):
    path = tmp_path / 'toy.yaml'
    path.write_text(
        TABLE.replace('name: linear,', 'name: linear, title: Linear decoder,')
        + '  - {name: end, title: Last weights, last_of: linear}\n'
    )
    table = experiments.load_table(path)
    # Whether the evaluation that trains is planned as well or not.
    for part in (table, experiments.select(table, evaluations=['end'])):
        steps, _ = plan(part)
        titles = {
            step.title.partition(',')[0]
            for step in steps.values()
            if step.kind == 'train'
        }
        assert titles == {'train Linear decoder'}


@pytest.mark.parametrize(
    'path',
    # Those of tools/transfer.py are checked in tests/test_configs.py.
    sorted(set(TABLES.glob('*.yaml')) - set(TABLES.glob('transfer_*.yaml'))),
    ids=lambda path: path.stem,
)
def test_shipped_tables_can_be_planned(path, monkeypatch):
    monkeypatch.chdir(TABLES.parents[1])
    table = experiments.load_table(path)
    steps, results = experiments.plan(
        experiments.select(table, seeds=table.seeds[:1], splits=table.splits[:1])
    )
    assert {step.kind for step in steps.values()} == {'pretrain', 'train', 'test'}
    evaluated = sum(len(row.evaluations or table.evaluations) for row in table.rows)
    assert len(results) == evaluated * len(table.fractions)
    for step in steps.values():
        options = dict(step.options)
        if step.kind == 'train' and step.weights:
            # The keys that take the checkpoint are there.
            keys = (table.weights_option, *step.weights_options)
            options.update(dict.fromkeys(keys, 'weights.pth'))
        content = experiments.resolved_config(step.config, options)
        loaders = [
            name
            for name in content
            if name.endswith('_dataloader') and content[name] is not None
        ]
        found = {content[name]['dataset']['split'] for name in loaders}
        assert found == set(table.splits[:1]) or not table.splits
        if step.kind != 'pretrain':
            validated = 'val_dataloader' in loaders
            assert validated == (content['val_cfg'] is not None)
            assert validated == table.validates(
                step.options.get(table.fraction_options[0], 1)
            )


def test_changed_pretraining_moves_only_what_depends_on_it(table):
    before, _ = plan(table)
    after, _ = experiments.plan(
        table,
        lambda config, options: {
            'config': config,
            'changed': config == 'pretrain.py',
            **options,
        },
    )
    kept = set(before) & set(after)
    assert {before[key].kind for key in before if key not in kept} == {
        'pretrain',
        'train',
        'test',
    }
    # An unchanged evaluation from random weights keeps its results. (The
    # fake above also changes its own entry, hence the third plan.)
    third, _ = experiments.plan(
        table,
        lambda config, options: {
            'config': config,
            **options,
            **({'lr': 2} if config == 'pretrain.py' else {}),
        },
    )
    assert {key for key in before if '-random-' in key} <= set(third)
    assert not {key for key in before if 'moco' in key} & set(third)


def test_checkpoint_row_needs_no_pretraining(table):
    row = replace(table.rows[1], pretrain=None, checkpoint='given.pth')
    steps, _ = plan(replace(table, rows=(row,)))
    assert {step.kind for step in steps.values()} == {'train', 'test'}
    step = next(iter(steps.values()))
    command = experiments.command_of(step, table, steps)
    assert 'model.backbone.init_cfg.checkpoint=given.pth' in command


def test_weights_go_to_all_keys_of_a_row(table):
    row = replace(
        table.rows[1],
        pretrain=None,
        checkpoint='given.pth',
        weights_options=('model.decode_head.init_cfg.checkpoint',),
    )
    steps, _ = plan(replace(table, rows=(row,)))
    for step in steps.values():
        command = experiments.command_of(step, table, steps)
        given = [word for word in command if word.endswith('=given.pth')]
        assert given == (step.kind == 'train') * [
            'model.backbone.init_cfg.checkpoint=given.pth',
            'model.decode_head.init_cfg.checkpoint=given.pth',
        ]


def test_what_weights_are_and_where_they_go_is_in_the_folder(table, tmp_path):
    """The content of a given file, and the keys that take it."""
    file = tmp_path / 'given.pth'

    def keys(row=(), **changes):
        own = replace(table.rows[1], pretrain=None, checkpoint=str(file), **dict(row))
        return set(plan(replace(table, rows=(own,), **changes))[0])

    file.write_bytes(b'one')
    first = keys()
    assert keys() == first
    further = dict(weights_options=('model.decode_head.init_cfg.checkpoint',))
    assert not keys(further) & first
    assert not keys(weights_option='model.neck.init_cfg.checkpoint') & first
    file.write_bytes(b'two')
    assert not keys() & first
    file.write_bytes(b'one')
    assert keys() == first


def test_resolved_config_follows_options():
    config = Path(__file__).parents[2] / 'configs/selfsup/default_runtime.py'
    first = experiments.resolved_config(str(config), {})
    second = experiments.resolved_config(str(config), {'randomness.seed': 7})
    assert first['randomness']['seed'] != 7 == second['randomness']['seed']


def test_classifiers_are_not_cross_validated(table):
    def resolve_classifier(config, options):
        kind = 'medssl_mm.ClassificationMetric' if config == 'linear.py' else 'other'
        return {'config': config, **options, 'test_evaluator': {'type': kind}}

    folds = replace(table, splits=('a-fold0', 'a-fold1'))
    with pytest.raises(
        UserError,
        match='linear.py.*classifier.*AUROC.* 2 splits.*one split',
    ):
        experiments.plan(folds, resolve_classifier)
    experiments.plan(replace(table, splits=('a-fold0',)), resolve_classifier)
    experiments.plan(folds, resolve)


def test_how_workers_start_is_not_hashed():
    config = str(TABLES.parent / 'selfsup/default_runtime.py')
    first = experiments.resolved_config(config, {})
    second = experiments.resolved_config(
        config, {'env_cfg.loader_timeout': 7, 'env_cfg.dist_cfg.timeout': 7}
    )
    assert first == second
    third = experiments.resolved_config(config, {'env_cfg.cudnn_benchmark': False})
    assert first != third


EPOCHS = TABLE.replace('title: MoCo', 'title: MoCo, epochs: [30, 10, 20]')


def test_checkpoints_of_one_pretraining_are_rows(tmp_path):
    (tmp_path / 'toy.yaml').write_text(
        EPOCHS.replace('baseline: random', 'baseline: moco-epoch10')
    )
    table = experiments.load_table(tmp_path / 'toy.yaml')
    table = replace(table, seeds=(0,), fractions=(1.0,))
    steps, results = plan(table)
    assert [run.label for run, _ in results] == [
        'random init',
        'MoCo @ epoch_10',
        'MoCo @ epoch_20',
        'MoCo @ epoch_30',
    ]
    (first,) = (step for step in steps.values() if step.kind == 'pretrain')
    assert first.title == 'pretrain MoCo, seed 0' and first.row == 'moco'
    assert set(first.keeps) == {10, 20, 30}
    assert first.options['default_hooks.checkpoint.interval'] == 10
    assert first.options['default_hooks.checkpoint.max_keep_ckpts'] == -1
    trainings = [step for step in steps.values() if first.key in step.needs]
    assert [step.epoch for step in trainings] == [10, 20, 30]
    assert len({step.key for step in trainings}) == 3
    part = experiments.select(table, rows=['moco'], baseline='moco-epoch20')
    assert [row.epoch for row in part.rows] == [10, 20, 30]


def test_training_starts_from_the_checkpoint_of_its_epoch(tmp_path):
    (tmp_path / 'toy.yaml').write_text(EPOCHS)
    table = replace(
        experiments.load_table(tmp_path / 'toy.yaml'), runs_dir=tmp_path / 'runs'
    )
    steps, _ = plan(replace(table, seeds=(0,), fractions=(1.0,)))
    (first,) = (step for step in steps.values() if step.kind == 'pretrain')
    first.folder.mkdir(parents=True)
    for epoch in (10, 15, 20, 30, 35):
        (first.folder / f'epoch_{epoch}.pth').touch()
    (first.folder / 'last_checkpoint').write_text(str(first.folder / 'epoch_35.pth'))
    for step in steps.values():
        if first.key in step.needs:
            found = checkpoint_for(step, first, table)
            assert found == first.folder / f'epoch_{step.epoch}.pth'
            command = ' '.join(experiments.command_of(step, table, steps))
            assert f'checkpoint={found}' in command
    dropped = experiments.drop_superseded(first.folder, first.keeps)
    assert [path.name for path in dropped] == ['epoch_15.pth']
    (first.folder / 'epoch_20.pth').unlink()
    late = next(step for step in steps.values() if step.epoch == 20)
    assert checkpoint_for(late, first, table) is None


def test_epochs_are_of_a_pretraining(tmp_path):
    path = tmp_path / 'toy.yaml'
    path.write_text(
        TABLE.replace('title: random init', 'title: random init, epochs: [1]')
    )
    with pytest.raises(UserError, match='epochs are those of pretrain'):
        experiments.load_table(path)
    path.write_text(TABLE.replace('title: MoCo', 'title: MoCo, epochs: [0]'))
    with pytest.raises(UserError, match=r'rows\[1\] \(moco\).epochs'):
        experiments.load_table(path)
