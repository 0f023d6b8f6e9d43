"""One config, or several put on top of each other."""

import pytest

from medssl_mm.engine.reading import config_name, moved_configs, read_config
from medssl_mm.errors import UserError
from tests.shipped import CONFIGS


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'methods').mkdir()
    (tmp_path / 'data').mkdir()
    (tmp_path / 'methods/a.py').write_text(
        "slices = dict(type='A', data_root='a', metainfo=dict(classes=['x']))\n"
        'train_cfg = dict(max_epochs=3, val=1)\nsteps = [1, 2, 3]\n'
    )
    (tmp_path / 'data/common.py').write_text("slices = dict(type='B', split='s')\n")
    (tmp_path / 'data/b.py').write_text(
        "_base_ = 'common.py'\ntrain_cfg = dict(max_epochs=9)\nsteps = [4]\n"
        'kept = dict(_delete_=True, a=1)\n'
    )
    (tmp_path / 'data/slight.py').write_text("slices = dict(split='t')\n")
    return tmp_path


def test_what_comes_later_wins(folder):
    content = read_config(f'{folder}/methods/a.py+b').to_dict()
    assert content['train_cfg'] == dict(max_epochs=9, val=1)
    assert content['steps'] == [4]
    # Other data, so nothing of the former data is left.
    assert content['slices'] == dict(type='B', split='s')


def test_settings_of_the_same_data_are_added(folder):
    content = read_config(f'{folder}/methods/a.py+slight').to_dict()
    assert content['slices'] == dict(
        type='A', data_root='a', metainfo=dict(classes=['x']), split='t'
    )


@pytest.mark.parametrize('kind, length', [('Queued', 8), ('Other', None)])
def test_settings_for_one_kind_of_model(folder, kind, length):
    (folder / 'methods/m.py').write_text(
        f"model = dict(type='medssl_mm.{kind}', a=1)\n"
    )
    (folder / 'data/few.py').write_text(
        'settings_for = dict(Queued=dict(model=dict(length=8, a=2), x=1))\nx = 2\n'
    )
    content = read_config(f'{folder}/methods/m.py+few').to_dict()
    assert content['model'].get('length') == length
    assert content['model']['a'] == (1 if length is None else 2)
    assert content['x'] == (2 if length is None else 1)
    assert 'settings_for' not in content


@pytest.mark.parametrize('name', ['btcv', 'curvas'])
def test_a_queue_is_for_the_method_that_has_one(name):
    folder = CONFIGS / 'selfsup'
    moco = f'{folder}/mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64.py'
    assert read_config(f'{moco}+{name}').model.queue_len in (64, 2048)
    for method in ('simclr', 'byol'):
        path = f'{folder}/{method}/{method}_resnet18_1xb64-coslr-150e_acdc-64.py'
        content = read_config(f'{path}+{name}')
        assert 'queue_len' not in content.model
        # Their own, not MoCo's: of Adam; of SGD in proportion to the batch.
        rate = content.optim_wrapper.optimizer.lr
        if method == 'simclr':
            assert rate <= 1e-3
        else:
            batch = content.train_dataloader.batch_size
            assert rate == pytest.approx(0.03 * batch / 64)


def test_parts_may_be_files(folder):
    by_name = read_config(f'{folder}/methods/a.py+b+slight')
    by_path = read_config(
        f'{folder}/methods/a.py+{folder}/data/b.py+{folder}/data/slight.py'
    )
    assert by_name.to_dict() == by_path.to_dict()
    assert by_name.slices.split == 't'


def test_nearest_folder_is_taken(folder):
    (folder / 'methods/data').mkdir()
    (folder / 'methods/data/b.py').write_text('train_cfg = dict(max_epochs=1)\n')
    assert read_config(f'{folder}/methods/a.py+b').train_cfg.max_epochs == 1


def test_a_plus_in_a_path_is_no_sum(folder):
    (folder / 'c++').mkdir()
    (folder / 'c++/a+b.py').write_text('x = 1\n')
    assert read_config(folder / 'c++/a+b.py').x == 1
    assert config_name(folder / 'c++/a+b.py') == 'a+b'


def test_name_tells_the_parts(folder):
    assert config_name(f'{folder}/methods/a.py+b') == 'a+b'


def test_unknown_part_suggests_one(folder):
    with pytest.raises(UserError, match=r'holds xcommon\.py; did you mean common\?'):
        read_config(f'{folder}/methods/a.py+xcommon')


def test_former_config_outside_the_table(folder):
    with pytest.raises(UserError, match=r'b\.py does not exist \(looked from'):
        read_config(folder / 'methods/b.py')


def test_table_of_former_configs_names_no_file_that_is_there():
    table = moved_configs(CONFIGS / 'README.md')
    assert len(table) > 30
    for former in table:
        assert not (CONFIGS / f'{former}.py').exists()
