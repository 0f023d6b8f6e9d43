"""What networks have seen: recorded through all steps, and compared."""

import io
import json

import numpy as np
import pytest
import torch

from medssl_mm.datasets.slices import SliceDataset
from medssl_mm.engine.seen import seen_in_file
from medssl_mm.errors import UserError
from medssl_mm.provenance import (
    Cases,
    Overlap,
    Seen,
    Shown,
    attach,
    join_facts,
    patient_digest,
    require_unseen,
    seen_of,
    sentences,
)


def digest(number):
    return f'{number:064x}'[::-1]


def cases(numbers, subsets=('test',), split='one', **changes):
    """Cases whose content, id and patient have the given numbers."""
    settings = dict(
        dataset='made',
        protocol=split,
        split_hash=f'hash-{split}',
        subsets=subsets,
        ids=[f'case{n}' for n in numbers],
        contents=[digest(n) for n in numbers],
        patients=[f'p{n}' for n in numbers],
    )
    return Cases(**{**settings, **changes})


def seen(stage, *args, **kwargs):
    return Seen((Shown.of(stage, cases(*args, **kwargs)),))


# ------------------------------------------------------------------ the record


def test_a_record_survives_file_json_and_lists_of_tensors(tmp_path):
    record = seen('pretrain', [1, 2], ('train', 'val')) | Seen(unknown=('old.pth',))
    plain = json.loads(json.dumps(record.to_plain()))
    assert seen_of(dict(provenance=plain), 'x') == record
    tensors = dict(weight=torch.ones(2))
    for content in (dict(state_dict=tensors), tensors):
        buffer = io.BytesIO()
        torch.save(attach(content, record), buffer)
        buffer.seek(0)
        read = torch.load(buffer, weights_only=True)
        assert seen_of(read, 'x') == record
    # Libraries that expect nothing but tensors find nothing else.
    assert list(attach(tensors, record)) == ['weight']


def test_safetensors_hold_the_record(tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    record = seen('train', [1])
    safetensors.save_file(
        dict(w=torch.ones(2)),
        tmp_path / 'w.safetensors',
        metadata=dict(provenance=json.dumps(record.to_plain())),
    )
    assert seen_in_file(tmp_path / 'w.safetensors') == record


def test_a_union_keeps_stages_and_splits_apart():
    joined = seen('pretrain', [1, 2]) | seen('pretrain', [2, 3]) | seen('train', [1])
    joined |= seen('train', [4], split='two')
    assert [(s.stage, s.protocol, len(s.contents)) for s in joined.shown] == [
        ('pretrain', 'one', 3),
        ('train', 'one', 1),
        ('train', 'two', 1),
    ]
    assert joined | joined == joined


def test_a_hundred_thousand_images_take_a_few_megabytes():
    numbers = np.random.default_rng(0).integers(0, 2**63, 100_000)
    large = cases(
        range(len(numbers)), contents=[f'{n:064x}'[::-1] for n in numbers], kind='image'
    )
    assert len(json.dumps(Seen((Shown.of('pretrain', large),)).to_plain())) < 4e6


def test_no_patient_id_is_in_a_record():
    text = json.dumps(seen('train', [1], patients=['Smith^Anna']).to_plain())
    assert 'Smith' not in text and patient_digest('made', 'Smith^Anna') in text


@pytest.mark.parametrize('content', [{}, dict(provenance='of another library'), 3])
def test_without_a_record_it_is_not_known(content):
    assert seen_of(content, 'some/folder/old.pth') == Seen(unknown=('old.pth',))


def test_newer_and_damaged_records_are_named():
    with pytest.raises(UserError, match=r'w.pth: .*version 7.*reads 1'):
        seen_of(dict(provenance=dict(version=7)), 'w.pth')
    with pytest.raises(UserError, match=r'w.pth: its entry .* is damaged'):
        seen_of(dict(provenance=dict(version=1, shown=[{}], unknown=[])), 'w.pth')


# -------------------------------------------------------------- the comparison


def test_test_cases_of_another_fold_that_were_trained_on_are_named():
    record = seen('train', [1, 2, 3], ('train',), split='fold1')
    scored = cases([3, 2, 9], split='fold0')
    with pytest.raises(
        UserError,
        match=r'w.pth: 2 of 3 test cases \(case2, case3\) were seen in training on '
        r'made \(fold1, split hash-fold1, train\).*--allow-seen',
    ):
        require_unseen(record, scored, 'w.pth')
    facts = require_unseen(record, scored, 'w.pth', allow=True)
    assert facts['train'] == dict(
        cases=2, further_of_seen_patients=0, names=['case2', 'case3']
    )
    assert sentences(facts) == ['seen in training: 2 of 3 test cases (case2, case3)']


def test_a_case_is_known_under_another_name_and_data_set():
    record = seen('train', [1], ('train',), dataset='old', ids=['a'], patients=['x'])
    with pytest.raises(UserError, match=r'1 of 2 test cases \(case1\)'):
        require_unseen(record, cases([1, 2]), 'w.pth')


def test_another_case_of_the_patient_leaks_in_one_data_set_only():
    record = seen('train', [1], ('train',), split='old', patients=['p7'])
    with pytest.raises(UserError, match=r'1 of 1 .*\(case7\) are of patients of whom'):
        require_unseen(record, cases([7]), 'w.pth')
    for other in (dict(dataset='other'), dict(by_image=True)):
        assert sentences(require_unseen(record, cases([7], **other), 'w')) == []


def test_equal_ids_in_two_sets_of_a_common_name_are_told_not_refused():
    record = seen('train', [1, 2], ('train',), split='old', patients=['p7', 'p8'])
    whole = [digest(7), digest(9)]
    scored = cases([7], published=False, whole=lambda: whole)
    (told,) = sentences(require_unseen(record, scored, 'w'))
    assert '1 of 1 test cases (case7) are of patients with the ids of seen ones' in told
    whole.append(digest(2))  # it is the set that was trained on
    with pytest.raises(UserError, match=r'1 of 1 .*\(case7\) are of patients of whom'):
        require_unseen(record, scored, 'w')


def test_pretraining_is_refused_where_the_split_keeps_test_cases_apart():
    record = seen('pretrain', [1, 2], ('pretrain',), split='fold0')
    scored = cases([1, 5], split='fold1', keeps_test_apart=True)
    with pytest.raises(UserError, match=r'1 of 2 .*\(case1\) were seen in pretraining'):
        require_unseen(record, scored, 'w.pth')
    told = require_unseen(record, cases([1, 5], split='fold1'), 'w.pth')
    assert sentences(told) == ['seen in pretraining: 1 of 2 test cases (case1)']


def test_validation_cases_may_be_pretrained_with_and_chosen_by_but_not_trained_on():
    scored = cases([1], ('val',), split='b', keeps_test_apart=True)
    for stage in ('pretrain', 'choice'):
        record = seen(stage, [1], ('pretrain',), split='a')
        assert sentences(require_unseen(record, scored, 'w', 'validation')) == []
    with pytest.raises(UserError, match=r'1 of 1 validation cases \(case1\)'):
        require_unseen(seen('train', [1], split='a'), scored, 'w', 'validation')


def test_test_cases_that_chose_the_weights_are_refused():
    with pytest.raises(UserError, match=r'were seen in model choice'):
        require_unseen(seen('choice', [1]), cases([1]), 'w')


def test_equal_content_in_two_subsets_of_one_split_is_told_not_refused():
    record = seen('train', [1, 2], ('train',))
    scored = cases([2], ids=['copy'], patients=['other'])
    (told,) = sentences(require_unseen(record, scored, 'w'))
    assert 'content of 1 of 1 test cases in another subset' in told and 'copy' in told


def test_the_pretraining_subset_of_a_split_may_hold_its_validation_cases():
    record = seen('pretrain', [1, 2], ('pretrain',))
    facts = require_unseen(record, cases([2], ('val',)), 'w', 'validation')
    assert sentences(facts) == []


def test_constant_images_are_not_taken_for_each_other():
    record = seen('train', [1], ('train',), split='a', contents=[''])
    assert not Overlap.find(record, cases([2], contents=[''])).shared


def test_what_is_not_known_is_one_sentence():
    facts = require_unseen(Seen(unknown=('a.pth', 'b.pth')), cases([1]), 'w')
    (told,) = sentences(facts)
    assert 'is not known' in told and 'a.pth, b.pth' in told


def test_facts_of_splits_add_up():
    parts = [
        require_unseen(
            seen('train', [n], ('train',), split='a'), cases([n]), 'w', 'test', True
        )
        for n in (1, 2)
    ]
    joined = join_facts([*parts, None])
    assert sentences(joined) == ['seen in training: 2 of 2 test cases (case1, case2)']
    assert join_facts([None]) is None


# ------------------------------------------------------------------- data sets


def test_cases_of_a_data_set_are_those_of_its_samples(tiny_store):
    everything = SliceDataset(tiny_store.root).cases()
    assert len(everything.ids) == 4 and not everything.keeps_test_apart
    part = SliceDataset(tiny_store.root, split='tiny', fraction=0.5).cases()
    assert part.keeps_test_apart and part.subsets == ('train',)
    assert len(part.ids) == 1 == len(part.patients)
    (name,) = part.ids
    assert part.contents == [tiny_store.case(name).content_sha256]
    few = SliceDataset(tiny_store.root, indices=7).cases()
    assert few.ids == everything.ids[:2]  # 6 slices a case
