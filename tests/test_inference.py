import copy
import gzip
import itertools
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from mmengine.config import Config

from medssl_mm.errors import UserError
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.inference import VolumeSegmentor, predict_file
from medssl_mm.provenance import Cases, Seen, Shown, attach
from tests.importers.dicom_files import make_slice
from tests.numerics import double

CONFIGS = Path(__file__).parents[1] / 'configs' / 'segmentation'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A linear decoder with random weights that finds several classes."""
    import medssl_mm.registry  # noqa: F401

    config = Config.fromfile(str(CONFIGS / '_base_' / 'models' / 'linear_resnet18.py'))
    config.default_scope = 'mmseg'
    config.model.backbone.in_channels = 1
    config.model.decode_head.update(num_classes=4, in_index=0, in_channels=64)
    config.test_dataloader = dict(
        dataset=dict(
            pipeline=[
                dict(type='medssl_mm.LoadSlice'),
                dict(type='medssl_mm.CTWindow', level=50, width=400),
                dict(type='medssl_mm.ResizeAndPad', size=64),
                dict(type='medssl_mm.LoadSliceLabel'),
                dict(type='medssl_mm.PackSlice'),
            ]
        )
    )
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    torch.manual_seed(0)
    net = MODELS.build(config.model)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(
                module.weight, std=1 / module.weight[0].numel() ** 0.5
            )
    path = tmp_path_factory.mktemp('model') / 'model.pth'
    torch.save(
        dict(
            state_dict=net.state_dict(),
            meta=dict(
                dataset_meta=dict(classes=['background', 'liver', 'spleen', 'kidney'])
            ),
        ),
        path,
    )
    return config, path


@pytest.fixture(scope='module')
def image():
    """HU in RAS order with something to see, 1 x 0.8 x 3 mm."""
    rng = np.random.default_rng(0)
    x, y, z = np.mgrid[:40, :36, :5]
    volume = np.full(x.shape, -1000, np.int16)
    body = ((x - 19) / 17) ** 2 + ((y - 17) / 15) ** 2 < 1
    volume[body] = 40
    volume[(x - 12) ** 2 + (y - 15) ** 2 < 40 - 3 * z] = 140
    volume[(x - 28) ** 2 + (y - 20) ** 2 < 9 + z] = -80
    volume = volume + rng.integers(-20, 20, x.shape).astype(np.int16)
    affine = np.diag([1, 0.8, 3, 1.0])
    affine[:3, 3] = -20, 12, 7
    return nib.Nifti1Image(volume, affine)


def predict(model, image, folder, name='in.nii.gz', **kwargs):
    nib.save(image, folder / name)
    output = folder / f'out-{name}'
    result = predict_file(*model, folder / name, output, device='cpu', **kwargs)
    return nib.load(output), result


def test_a_volume_of_the_training_is_refused_or_noted(model, image, tmp_path):
    config, path = model
    nib.save(image, tmp_path / 'in.nii.gz')
    known = predict_file(config, path, tmp_path / 'in.nii.gz', tmp_path / '0.nii.gz')
    assert any('is not known' in note for note in known.warnings)
    cases = Cases(
        'x', 'p', 'abc', ('train',), ['a'], [known.case.content_sha256], ['p']
    )
    content = torch.load(path, weights_only=True)
    trained = tmp_path / 'trained.pth'
    torch.save(attach(content, Seen((Shown.of('train', cases),))), trained)
    arguments = (config, trained, tmp_path / 'in.nii.gz', tmp_path / '1.nii.gz')
    with pytest.raises(
        UserError, match=r'1 of 1 .* \(in.nii.gz\) were seen in training'
    ):
        predict_file(*arguments)
    assert not (tmp_path / '1.nii.gz').exists()
    found = predict_file(*arguments, allow_seen=True)
    assert found.warnings == ('seen in training: 1 of 1 test cases (in.nii.gz)',)


def test_values_that_a_model_of_8_bit_has_not_seen(model, image, tmp_path):
    """HU divided by 255 are no picture; what is brought to 0 to 255 goes through."""
    config, path = copy.deepcopy(model[0]), model[1]
    dataset = config.test_dataloader.dataset
    dataset.pipeline[1] = dict(type='medssl_mm.ShiftScale', mean=0.0, std=255.0)
    for modality in (None, 'CT'):
        with pytest.raises(
            UserError, match=r'in.nii.gz has values from -10.*ShiftScale.*uint8'
        ):
            predict((config, path), image, tmp_path, modality=modality)
    assert sorted(os.listdir(tmp_path)) == ['in.nii.gz']
    values = np.clip((np.asarray(image.dataobj) + 200) / 500, 0, 1) * 255
    for kind in (np.uint8, np.float32):
        windowed = nib.Nifti1Image(values.astype(kind), image.affine)
        name = f'{np.dtype(kind).name}.nii.gz'
        assert predict((config, path), windowed, tmp_path, name)[0].shape == image.shape


def test_labels_lie_on_the_grid_of_the_input(model, image, tmp_path):
    found, result = predict(model, image, tmp_path)
    assert found.shape == image.shape
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_allclose(found.affine, image.affine)
    labels = np.asarray(found.dataobj)
    assert len(np.unique(labels)) >= 3  # otherwise the test says nothing
    counts = np.bincount(labels.ravel(), minlength=4)
    assert result.volumes_ml()['liver'] == pytest.approx(counts[1] * 0.0024)


def test_turned_input_gives_the_turned_prediction(model, image, tmp_path):
    """All flips, two axis orders: the same labels at the same places."""
    expected = np.asarray(predict(model, image, tmp_path)[0].dataobj)
    for order, flips in itertools.product(
        [(0, 1, 2), (2, 0, 1)], itertools.product([1, -1], repeat=3)
    ):
        turn = np.array([[i, f] for i, f in zip(order, flips)], float)
        turned = image.as_reoriented(turn)
        found, _ = predict(model, turned, tmp_path, 'turned.nii', overwrite=True)
        np.testing.assert_allclose(found.affine, turned.affine, atol=1e-5)
        np.testing.assert_array_equal(
            np.asarray(found.dataobj),
            nib.apply_orientation(expected, turn).astype(np.uint8),
        )


def test_other_formats_give_the_same_labels(model, image, tmp_path):
    sitk = pytest.importorskip('SimpleITK')
    expected, _ = predict(model, image, tmp_path)
    same = sitk.ReadImage(str(tmp_path / 'in.nii.gz'))
    for name in ('in.nrrd', 'in.mha'):
        sitk.WriteImage(same, str(tmp_path / name))
        output = tmp_path / f'{name}.nii.gz'
        predict_file(*model, tmp_path / name, output, device='cpu')
        found = nib.load(output)
        np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
        np.testing.assert_array_equal(
            np.asarray(found.dataobj), np.asarray(expected.dataobj)
        )
    sitk.WriteImage(same, str(tmp_path / 'in.tif'))
    with pytest.raises(UserError, match='without geometry'):
        predict_file(*model, tmp_path / 'in.tif', tmp_path / 'o.nii.gz', device='cpu')


def test_lengths_in_micrometre(model, image, tmp_path):
    expected, _ = predict(model, image, tmp_path)
    affine = image.affine.copy()
    affine[:3] *= 1000
    small = nib.Nifti1Image(image.dataobj, affine)
    small.header.set_xyzt_units('micron')
    found, result = predict(model, small, tmp_path, 'micron.nii.gz')
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
    assert found.header.get_xyzt_units()[0] == 'mm'
    np.testing.assert_array_equal(
        np.asarray(found.dataobj), np.asarray(expected.dataobj)
    )
    assert any('micron' in text for text in result.warnings)


def test_oblique_grid_and_header_codes_are_kept(model, image, tmp_path):
    angle = np.deg2rad(20)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    oblique = nib.Nifti1Image(image.dataobj, tilt @ image.affine)
    oblique.set_sform(oblique.affine, code='aligned')
    oblique.set_qform(oblique.affine, code='scanner')
    found, _ = predict(model, oblique, tmp_path)
    np.testing.assert_allclose(found.affine, oblique.affine, atol=1e-5)
    # One code, and both forms say the same.
    assert int(found.header['sform_code']) == int(found.header['qform_code']) == 2
    np.testing.assert_allclose(found.get_qform(), found.get_sform(), atol=1e-4)


@pytest.mark.parametrize('codes', [(0, 0), (0, 1), (4, 0), (2, 3)])
def test_labels_lie_on_the_image_for_other_programs(model, image, tmp_path, codes):
    """Whichever form a program takes of the image, it has that of the labels."""
    sitk = pytest.importorskip('SimpleITK')
    source = nib.Nifti1Image(image.dataobj, image.affine)
    source.set_sform(image.affine if codes[0] else None, codes[0])
    source.set_qform(image.affine, codes[1])
    if not any(codes):
        source = nib.Nifti1Image(image.dataobj, None)
        source.header.set_zooms((1, 0.8, 3))
        source.set_sform(None, 0)
        source.set_qform(None, 0)
    found, _ = predict(model, source, tmp_path)
    code = codes[0] or codes[1]
    assert int(found.header['sform_code']) == int(found.header['qform_code']) == code
    grids = [sitk.ReadImage(str(tmp_path / n)) for n in ('in.nii.gz', 'out-in.nii.gz')]
    for key in ('GetOrigin', 'GetSpacing', 'GetDirection'):
        one, other = (getattr(grid, key)() for grid in grids)
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_gzip_is_told_by_content(model, image, tmp_path):
    expected, _ = predict(model, image, tmp_path, 'in.nii')
    plain = (tmp_path / 'in.nii').read_bytes()
    (tmp_path / 'plain.nii.gz').write_bytes(plain)
    (tmp_path / 'packed.nii').write_bytes(gzip.compress(plain))
    for name in ('plain.nii.gz', 'packed.nii'):
        output = tmp_path / 'out.nii.gz'
        predict_file(*model, tmp_path / name, output, device='cpu', overwrite=True)
        found = nib.load(output)
        np.testing.assert_allclose(found.affine, expected.affine)
        np.testing.assert_array_equal(
            np.asarray(found.dataobj), np.asarray(expected.dataobj)
        )


def test_an_output_that_is_an_input_is_refused_before_the_work(image, tmp_path):
    nib.save(image, tmp_path / 'in.nii.gz')
    nib.save(image, tmp_path / 'second.nii.gz')
    content = (tmp_path / 'in.nii.gz').read_bytes()
    (tmp_path / 'linked.nii.gz').symlink_to('in.nii.gz')
    os.link(tmp_path / 'in.nii.gz', tmp_path / 'twin.nii.gz')
    (tmp_path / 'folder.nii.gz').mkdir()
    inputs = [tmp_path / 'second.nii.gz', tmp_path / 'in.nii.gz']
    for name, message in [
        ('in.nii.gz', 'is an input'),
        ('linked.nii.gz', 'is an input'),
        ('twin.nii.gz', 'is an input'),
        ('folder.nii.gz', 'is a folder'),
    ]:
        with pytest.raises(UserError, match=message):  # without looking at the model
            predict_file(None, 'none.pth', inputs, tmp_path / name, overwrite=True)
    assert (tmp_path / 'in.nii.gz').read_bytes() == content


def test_a_pipe_is_not_waited_for(model, tmp_path):
    os.mkfifo(tmp_path / 'in.nii.gz')
    with pytest.raises(UserError, match='is no file'):
        predict_file(*model, tmp_path / 'in.nii.gz', tmp_path / 'o.nii', device='cpu')


def write_tilted(folder, image, degrees=20.0):
    """The slices of an image as DICOM, each 3 mm up and back by the tilt."""
    folder.mkdir()
    step = (0, 3 * np.sin(np.deg2rad(degrees)), 3 * np.cos(np.deg2rad(degrees)))
    values = np.asarray(image.dataobj).astype(int)
    for index in range(values.shape[2]):
        pixels = np.clip(values[..., index].T + 1024, 0, 4000)
        make_slice(pixels, np.multiply(step, index), PixelSpacing=[0.8, 1.0]).save_as(
            folder / f'{index}.dcm', enforce_file_format=True
        )


def test_a_sheared_grid_is_written_with_one_affine(model, image, tmp_path):
    write_tilted(tmp_path / 'scan', image)
    result = predict_file(
        *model, tmp_path / 'scan', tmp_path / 'out.nii.gz', device='cpu'
    )
    found = nib.load(tmp_path / 'out.nii.gz')
    _, affine, _ = read_series([str(p) for p in sorted((tmp_path / 'scan').iterdir())])
    sform, code = found.header.get_sform(coded=True)
    np.testing.assert_allclose(sform, affine, atol=1e-5)
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert code == 1 and int(found.header['qform_code']) == 0
    assert any('sheared by 20.0 degrees' in text for text in result.warnings)
    voxel = 0.8 * 1.0 * 3 * np.cos(np.deg2rad(20)) / 1000
    labels = np.asarray(found.dataobj)
    for value, name in enumerate(result.classes[1:], 1):
        expected = (labels == value).sum() * voxel
        assert result.volumes_ml()[name] == pytest.approx(expected)
    # The same slices of an upright gantry have a qform and larger voxels.
    write_tilted(tmp_path / 'upright', image, degrees=0.0)
    upright = predict_file(
        *model, tmp_path / 'upright', tmp_path / 'up.nii.gz', device='cpu'
    )
    assert int(nib.load(tmp_path / 'up.nii.gz').header['qform_code']) == 1
    for name, volume in result.volumes_ml().items():
        assert volume == pytest.approx(
            upright.volumes_ml()[name] * np.cos(np.deg2rad(20))
        )


def test_a_sheared_nifti_keeps_no_wrong_qform(model, image, tmp_path):
    shear = np.eye(4)
    shear[1, 2] = 0.3
    image = nib.Nifti1Image(image.dataobj, image.affine @ shear)
    image.set_qform(image.affine, code='scanner')
    image.set_sform(image.affine, code='scanner')
    found, result = predict(model, image, tmp_path)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
    assert int(found.header['qform_code']) == 0
    assert any('sheared by' in text for text in result.warnings)


def test_batch_size_does_not_matter(model, image, tmp_path):
    nib.save(image, tmp_path / 'in.nii.gz')
    done = []
    one = VolumeSegmentor(*model, device='cpu', batch_size=1)
    all_at_once = VolumeSegmentor(*model, device='cpu', batch_size=99)
    for segmentor in (one, all_at_once):
        # In float32 a voxel between two classes may go either way.
        segmentor.model.double().backbone.register_forward_pre_hook(
            lambda module, images: double(images)
        )
    np.testing.assert_array_equal(
        one.segment(
            tmp_path / 'in.nii.gz', progress=lambda *args: done.append(args)
        ).labels,
        all_at_once.segment(tmp_path / 'in.nii.gz').labels,
    )
    assert done == [(n, 5) for n in range(1, 6)]


def volume_of(shape=(32, 32, 4), value=None):
    data = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    if value is not None:
        data[:] = value
    return nib.Nifti1Image(data, np.eye(4))


@pytest.mark.parametrize(
    'bad, message',
    [
        (volume_of((32, 32, 4, 3)), r'has shape \(32, 32, 4, 3\), expected 3'),
        (volume_of(value=7), 'every voxel is 7'),
        (volume_of(value=np.nan), 'NaN or infinite'),
        (volume_of((4, 4, 4)), 'fewer than 8 a side'),
    ],
)
def test_unusable_volumes(model, tmp_path, bad, message):
    with pytest.raises(UserError, match=message):
        predict(model, bad, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ['in.nii.gz']


def test_unusable_files(model, image, tmp_path):
    nib.save(image, tmp_path / 'in.nii.gz')
    content = (tmp_path / 'in.nii.gz').read_bytes()
    (tmp_path / 'cut.nii.gz').write_bytes(content[: len(content) // 2])
    (tmp_path / 'empty').mkdir()
    good = tmp_path / 'in.nii.gz'
    for source, output, message in [
        (tmp_path / 'cut.nii.gz', 'o.nii.gz', 'cut.nii.gz cannot be read'),
        (tmp_path / 'none.nii.gz', 'o.nii.gz', 'none.nii.gz does not exist'),
        (tmp_path / 'empty', 'o.nii.gz', 'no cases for'),
        (good, 'o.png', 'must end with .nii or .nii.gz'),
        (good, 'in.nii.gz', 'in.nii.gz is an input'),
        (good, 'cut.nii.gz', 'cut.nii.gz exists; .* --overwrite'),
        (good, 'none/o.nii.gz', 'none does not exist'),
    ]:
        with pytest.raises(UserError, match=message):
            predict_file(*model, source, tmp_path / output, device='cpu')
    assert not (tmp_path / 'o.nii.gz').exists()


def test_wrong_checkpoint(model, image, tmp_path):
    config, path = model
    weights = torch.load(path, weights_only=True)['state_dict']
    encoder = tmp_path / 'encoder.pth'
    torch.save(
        dict(
            state_dict={
                name: value
                for name, value in weights.items()
                if name.startswith('backbone')
            }
        ),
        encoder,
    )
    with pytest.raises(UserError, match='holds no decode head'):
        VolumeSegmentor(config, encoder)
    other = copy.deepcopy(config)
    other.model.decode_head.num_classes = 9
    with pytest.raises(UserError, match='another model'):
        VolumeSegmentor(other, path)
    with pytest.raises(UserError, match="device 'nonsense' cannot be used"):
        VolumeSegmentor(config, path, device='nonsense')
    ruined = tmp_path / 'ruined.pth'
    name = next(name for name in weights if name.endswith('bn1.weight'))
    weights[name] = weights[name] * torch.nan
    torch.save(dict(state_dict=weights), ruined)
    with pytest.raises(UserError, match=rf'ruined.pth holds 1 weights .* {name}'):
        VolumeSegmentor(config, ruined)


@pytest.mark.slow
def test_dicom_series(model, realdata, tmp_path):
    """JPEG 2000 slices: on the grid of the reference segmentation."""
    folder = realdata / 'totalsegmentator_tests' / 'example_ct_dicom'
    result = predict_file(*model, folder, tmp_path / 'out.nii.gz', device='cpu')
    found = nib.load(tmp_path / 'out.nii.gz')
    reference = nib.load(
        realdata / 'totalsegmentator_tests' / 'example_seg_dicom.nii.gz'
    )
    corners = np.array(
        [[x, y, z, 1] for x in (0, 511) for y in (0, 511) for z in (0, 19)]
    )
    mine, theirs = corners @ found.affine.T, corners @ reference.affine.T
    distance = np.linalg.norm(mine[:, None] - theirs, axis=-1).min(1)
    assert distance.max() < 0.5  # mm, corner by corner, in any order
    assert result.case.shape == (20, 512, 512)


def test_labels_without_geometry_are_kept_as_an_array(tmp_path):
    from medssl_mm.evaluation.label_nifti import write_label_array

    labels = np.random.default_rng(0).integers(0, 4, (3, 8, 9), np.uint8)
    write_label_array(labels, tmp_path / 'case.npz')
    with np.load(tmp_path / 'case.npz') as content:
        np.testing.assert_array_equal(content['labels'], labels)
    assert [path.name for path in tmp_path.iterdir()] == ['case.npz']
    with pytest.raises(UserError, match='cannot write .*absent'):
        write_label_array(labels, tmp_path / 'absent' / 'case.npz')
