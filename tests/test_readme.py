"""The example of the front page runs."""

import re
from pathlib import Path

import torch

from medssl_mm.registry import MODELS

README = Path(__file__).parents[1] / 'README.md'


def test_python_example(tiny_store, tmp_path, monkeypatch, capsys):
    example = re.search(r'```python\n(.*?)```', README.read_text('utf-8'), re.S)[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/phantom').symlink_to(tiny_store.root)
    for seed, name in enumerate('ab'):
        torch.manual_seed(seed)
        network = MODELS.build(dict(type='mmpretrain.ResNet', depth=18, in_channels=1))
        file = tmp_path / f'work_dirs/{name}/epoch_60.pth'
        file.parent.mkdir(parents=True)
        names = {
            f'backbone.{key}': value for key, value in network.state_dict().items()
        }
        torch.save(dict(state_dict=names), file)
    space = {}
    exec(compile(example, str(README), 'exec'), space)
    assert 0 < float(capsys.readouterr().out) < 1
    first = str(tmp_path / 'work_dirs/a/epoch_60.pth')
    same = space['linear_cka'](space['features'](first), space['features'](first))
    torch.testing.assert_close(same, torch.ones_like(same))
