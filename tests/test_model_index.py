"""The index of models is what the READMEs say."""

import runpy
from pathlib import Path

import pytest
import yaml

from medssl_mm.errors import UserError

ROOT = Path(__file__).parents[1]
LAST_STAGE = 'linear decoder on the last stage, mean Dice, networks of before'
TOOL = runpy.run_path(str(ROOT / 'tools/model_index.py'))


def test_file_is_up_to_date():
    written = (ROOT / 'model-index.yml').read_text(encoding='utf-8')
    assert written == TOOL['text_of'](TOOL['index']()), 'python tools/model_index.py'


def test_every_table_is_read():
    models = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Models']
    by_name = {model['Name']: model for model in models}
    acdc = by_name['mocov2_resnet18_1xb64-coslr-150e_acdc-64']
    assert acdc['In Collection'] == 'MoCo v2'
    assert acdc['Metadata']['Epochs'] == '150'
    assert acdc['Results'][LAST_STAGE].startswith('37.5 ± 1.1')
    # "the same" is written out.
    last = by_name['nih1000/lastlayer_resnet18_nih1000-64']
    assert last['Metadata']['Data'] == '1000 X-rays, nih1000-patients'
    assert {model['In Collection'] for model in models} >= {'BYOL', 'SimCLR'}


def test_row_of_no_config_is_an_error(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text('# Title\n')
    with pytest.raises(UserError, match='gone names no config'):
        TOOL['model_of']({'config': '`gone`', 'data': 'x'}, readme)
