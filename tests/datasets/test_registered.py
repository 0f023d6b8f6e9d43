import pytest

from medssl_mm import registry
from medssl_mm.datasets import registered, transforms


def test_every_transform_is_found_by_name():
    names = [n for n in transforms.__all__ if n != 'ViewGeometry']
    for name in names:
        assert registry.TRANSFORMS.get(f'medssl_mm.{name}') is getattr(transforms, name)


@pytest.mark.parametrize(
    'name',
    [
        'SliceDataset',
        'Abdomen1KSlices',
        'BTCVSlices',
        'ACDCSlices',
        'PhantomSlices',
        'CurvasSlices',
    ],
)
def test_every_slice_data_set_is_found_by_name(name):
    assert registry.DATASETS.get(f'medssl_mm.{name}') is getattr(
        registered.slices, name
    )


@pytest.mark.parametrize(
    'name',
    [
        'ClassificationImages',
        'NIHChestXray14',
        'BreastHistopathologyIDC',
        'DiabeticRetinopathy',
    ],
)
def test_every_image_data_set_is_found_by_name(name):
    assert registry.DATASETS.get(f'medssl_mm.{name}') is getattr(
        registered.classification, name
    )


def test_sampler_and_list_are_found_by_name():
    assert (
        registry.DATA_SAMPLERS.get('medssl_mm.ResumableSampler')
        is registered.sampler.ResumableSampler
    )
    assert (
        registry.DATASETS.get('medssl_mm.SliceImageList')
        is registered.image_list.SliceImageList
    )


def test_no_name_of_a_host_is_taken():
    import mmcls.datasets  # noqa: F401
    import mmpretrain.datasets  # noqa: F401
    import mmseg.datasets  # noqa: F401
    import mmselfsup.datasets  # noqa: F401
    from mmengine.registry import DATASETS, TRANSFORMS

    for root, own in ((TRANSFORMS, registry.TRANSFORMS), (DATASETS, registry.DATASETS)):
        ours = set(own.module_dict)
        for name, child in root.children.items():
            if name != 'medssl_mm':
                assert not ours & set(child.module_dict)
        assert not ours & set(root.module_dict)
