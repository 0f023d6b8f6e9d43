import pytest
import torch
from mmengine.optim import OptimWrapper

from medssl_mm.engine.optimizers import AutocastOptimWrapper

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a CUDA device'
)


def _fit(wrapper_type, steps=4, device='cpu', **settings):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapper = wrapper_type(optimizer=optimizer, **settings)
    wrapper.initialize_count_status(model, 0, steps)
    for step in range(steps):
        inputs = torch.full((4, 3), 0.1 * (step + 1), device=device)
        with wrapper.optim_context(model):
            output = model(inputs)
        wrapper.update_params(output.float().square().mean())
    return model.weight.detach().cpu(), output, wrapper


def test_forward_runs_in_bfloat16_and_parameters_stay_float32():
    weight, output, _ = _fit(AutocastOptimWrapper)
    assert output.dtype == torch.bfloat16
    assert weight.dtype == torch.float32
    exact, _, _ = _fit(OptimWrapper)
    torch.testing.assert_close(weight, exact, rtol=0.02, atol=0.01)


@pytest.mark.parametrize(
    'settings',
    [dict(accumulative_counts=2), dict(clip_grad=dict(max_norm=0.01))],
)
def test_accumulation_and_clipping_work_as_upstream(settings):
    weight, _, _ = _fit(AutocastOptimWrapper, **settings)
    exact, _, _ = _fit(OptimWrapper, **settings)
    plain, _, _ = _fit(OptimWrapper)
    torch.testing.assert_close(weight, exact, rtol=0.02, atol=0.005)
    assert (exact - plain).abs().max() > 0.02


def test_state_goes_to_and_from_the_plain_wrapper():
    weight, _, wrapper = _fit(AutocastOptimWrapper)
    state = wrapper.state_dict()
    _, _, plain = _fit(OptimWrapper)
    saved = plain.state_dict()
    wrapper.load_state_dict(saved)
    momentum = wrapper.optimizer.state_dict()['state'][0]['momentum_buffer']
    torch.testing.assert_close(momentum, saved['state'][0]['momentum_buffer'])
    wrapper.load_state_dict(state)
    assert 'loss_scaler' in state


def test_wrong_dtypes_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="bfloat16, float16, got 'half'"):
        _fit(AutocastOptimWrapper, dtype='half')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match="needs a CUDA .*dtype='bfloat16'"):
        _fit(AutocastOptimWrapper, dtype='float16')


@needs_gpu
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_both_dtypes_train_on_a_gpu(dtype):
    weight, output, wrapper = _fit(AutocastOptimWrapper, device='cuda', dtype=dtype)
    assert output.dtype == getattr(torch, dtype)
    exact, _, _ = _fit(OptimWrapper, device='cuda')
    torch.testing.assert_close(weight, exact, rtol=0.02, atol=0.01)


@needs_gpu
def test_loss_scale_shrinks_on_overflow_and_is_saved():
    _, _, wrapper = _fit(
        AutocastOptimWrapper,
        device='cuda',
        dtype='float16',
        initial_scale=2.0**40,
    )
    scale = wrapper.state_dict()['loss_scaler']['scale']
    assert scale < 2.0**40
    _, _, other = _fit(AutocastOptimWrapper, device='cuda', dtype='float16')
    other.load_state_dict(wrapper.state_dict())
    assert other.state_dict()['loss_scaler']['scale'] == scale
