import json

import pytest
import torch
from mmengine.config import Config

from medssl_mm.engine import launch
from medssl_mm.errors import UserError
from tests.engine import toy


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / 'toy_config.py'
    settings = toy.config(tmp_path / 'run')
    del settings['work_dir']
    Config(settings).dump(path)
    return path


def test_work_dir_follows_the_name_of_the_config(config_file):
    assert launch.load_config(config_file).work_dir == 'work_dirs/toy_config'


def test_options_change_the_config(config_file):
    config = launch.load_config(
        config_file,
        [
            'train_cfg.max_epochs=2',
            'model.bad_from=None',
            'param_scheduler.0.T_max=8',
            'work_dir=elsewhere',
            'find_unused_parameters=True',
        ],
    )
    assert config.train_cfg.max_epochs == 2
    assert config.model.bad_from is None
    assert config.param_scheduler[0].T_max == 8
    assert config.work_dir == 'elsewhere'


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('1e-3', 1e-3),
        ('true', True),
        ('none', None),
        ('some/path.pth', 'some/path.pth'),
        ('[1,2]', [1, 2]),
        ('(1, 2)', [1, 2]),
        ('1,2', [1, 2]),
        ('[layer1,layer2]', ['layer1', 'layer2']),
        ("{'a': 1}", {'a': 1}),
        ('', ''),
        ('a=b', 'a=b'),
        # Names of parts and days, which Python takes for numbers.
        ('2_2', '2_2'),
        ('2024_01', '2024_01'),
        ('-1_0', '-1_0'),
        ('2_2,3', ['2_2', 3]),
        ("{'a': [2_2, 1.5]}", {'a': ['2_2', 1.5]}),
        ('-3', -3),
    ],
)
def test_values_of_options(text, value):
    assert launch.parse_options([f'key={text}']) == {'key': value}


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('max_epochs', r"KEY=VALUE, got 'max_epochs'"),
        ('trian_cfg.max_epochs=1', r"no key 'trian_cfg'; did you mean train"),
        ('lr=0.1', r"the config has no key 'lr'"),
        ('resum=True', r'did you mean resume\?'),
        (
            'train_cfg.max_epoch=1',
            r"train_cfg of the config has no key 'max_epoch'; did you mean "
            'max_epochs',
        ),
        ('model.backbon.depth=1', r"model has no key 'backbon'"),
        ('param_scheduler.3.T_max=1', r'is a list of 1; write an index'),
        ('train_dataloader.batch_size.x=1', r'batch_size is 4 and has no'),
    ],
)
def test_slips_in_options_are_found(config_file, option, message):
    with pytest.raises(UserError, match=message):
        launch.load_config(config_file, [option])


def test_new_arguments_of_a_constructor_are_let_through(config_file):
    option = 'train_dataloader.dataset.fraction=0.1'
    config = launch.load_config(config_file, [option])
    assert config.train_dataloader.dataset.fraction == 0.1


def test_a_later_option_may_go_into_what_an_earlier_one_brings(config_file):
    options = {
        'model': dict(_delete_=True, type='Other', part=dict(a=1)),
        'model.part.file': 'weights.pth',
    }
    # A part that is replaced is so each time.
    for _ in range(2):
        content = launch.load_config(config_file, options)
        assert content.model.to_dict() == dict(
            type='Other', part=dict(a=1, file='weights.pth')
        )
    with pytest.raises(UserError, match="has no key 'part'"):
        launch.load_config(config_file, {'model.part.file': 'weights.pth'})


def test_missing_config_suggests_its_neighbour(config_file):
    with pytest.raises(
        UserError, match=r'toy_confg\.py does not exist.*mean toy_config\.py'
    ):
        launch.load_config(config_file.with_name('toy_confg.py'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("_base_ = ['./gone.py']", r'based on is missing.*gone\.py'),
        ('model = dict(', 'cannot be read'),
        (
            "custom_imports = dict(imports=['no_such_module'], "
            'allow_failed_imports=False)',
            'imports what is not there.*no_such_module',
        ),
    ],
)
def test_faulty_config_is_named(tmp_path, text, message):
    path = tmp_path / 'faulty.py'
    path.write_text(text)
    with pytest.raises(UserError, match=rf'(?s)faulty\.py.*{message}'):
        launch.load_config(path)


def _make(tmp_path, settings=None, **options):
    config = Config(settings or toy.config(tmp_path))
    return launch.make_runner(config, **options)


def test_options_of_a_run_reach_the_runner(tmp_path):
    runner = _make(tmp_path, work_dir=str(tmp_path / 'w'), seed=7, amp='bfloat16')
    assert runner.work_dir == str(tmp_path / 'w')
    assert runner.seed == 7
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert wrapper.dtype is torch.bfloat16


def test_learning_rate_scales_with_the_global_batch(tmp_path):
    settings = toy.config(tmp_path, auto_scale_lr=dict(base_batch_size=8))
    runner = _make(tmp_path, settings, auto_scale_lr=True)
    runner.train()
    rates = runner.message_hub.get_scalar('train/lr').data[0]
    assert rates[0] == pytest.approx(0.05 * 4 / 8)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(auto_scale_lr=True), r'auto_scale_lr=dict\(base_batch_size'),
        (dict(checkpoint='gone.pth'), r'gone\.pth is not there'),
        (dict(resume='gone.pth'), r'gone\.pth is not there'),
    ],
)
def test_options_that_cannot_be_met(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        _make(tmp_path, **options)


def test_unknown_type_is_a_user_error(tmp_path):
    settings = toy.config(tmp_path, model=dict(type='ToyModle'))
    with pytest.raises(UserError, match=r'ToyModle is not in the.*prefix'):
        _make(tmp_path, settings)


def test_one_of_several_processes_without_launcher(tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(UserError, match='--launcher pytorch'):
        _make(tmp_path)


def test_automatic_resume_prefers_its_own_run_to_load_from(tmp_path):
    toy.train(toy.config(tmp_path / 'pretrain'))
    weights = str(tmp_path / 'pretrain' / 'epoch_4.pth')
    settings = toy.config(tmp_path / 'run', load_from=weights)
    first = toy.train(settings, resume='auto')
    assert first.model.steps == 32  # 16 of the weights, 16 own
    again = toy.train(settings, resume='auto')
    assert again.model.steps == 32
    assert again.iter == 16


def test_metrics_are_written_as_json(tmp_path):
    path = tmp_path / 'new' / 'metrics.json'
    launch.write_metrics(path, {'dice': torch.tensor(0.5).item(), 'n': 3})
    assert json.loads(path.read_text()) == {'dice': 0.5, 'n': 3}
    assert [p.name for p in path.parent.iterdir()] == ['metrics.json']


@pytest.mark.parametrize(
    ('unit', 'by_epoch', 'parts', 'facts'),
    [
        ('epochs', True, [dict(end=10), dict(begin=10)], ['.1', '10', '=5', '.0.end']),
        ('iters', False, [dict(begin=7, end=7)], ['.0 (LinearLR)', '7', 'iters']),
    ],
)
def test_a_schedule_that_begins_after_the_run_is_refused(
    config_file, unit, by_epoch, parts, facts
):
    config = launch.load_config(config_file)
    config.train_cfg = {f'max_{unit}': 5, 'by_epoch': by_epoch}
    config.param_scheduler = [
        dict(type='LinearLR', by_epoch=by_epoch, **part) for part in parts
    ]
    with pytest.raises(UserError) as error:
        launch.make_runner(config)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize(
    'by_epoch, change, message',
    [
        (False, dict(max_epochs=2), "no 'max_epochs' .*set train_cfg.max_iters"),
        (True, dict(max_iters=2), "no 'max_iters' .*set train_cfg.max_epochs"),
        (False, dict(val_intervall=2), "no 'val_intervall'.*did you mean val_interval"),
        (True, dict(max_epochs='two'), "max_epochs must be a whole number, got 'two'"),
        (True, dict(max_epochs=None), 'max_epochs must be a whole number, got None'),
    ],
)
def test_training_loop_that_cannot_be_built(tmp_path, by_epoch, change, message):
    settings = toy.config(tmp_path, by_epoch)
    settings['train_cfg'].update(change)
    with pytest.raises(UserError, match=message):
        toy.train(settings)
