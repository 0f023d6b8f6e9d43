"""What may be asserted about numbers that another processor rounds otherwise.

Sums, matrix products and elementary functions differ in their last bits from
one processor, library and number of threads to the next. A ReLU, a max-pool,
an argmax or the statistics of a few samples can turn such a bit into a
difference of any size, in float32 now and then, in bfloat16 all the time. So:

* Two computations that are the same in exact arithmetic are compared in
  float64 (``double``, ``close``): there a decision flips about once in 10^9
  times as often as in float32, and a true difference stays what it is.
* Short sums without such a decision may be compared in float32 with the
  default tolerances of ``torch.testing.assert_close``.
* Bit equality is asserted of one program run twice in one process, or of
  values that are only copied; never between batch sizes, memory layouts,
  numbers of threads or of processes.
* Reduced precision is judged by what that precision can give: the distance
  from the exact result that ``err_as`` finds when every layer errs by half a
  step of the format.

``tests/rounding.py`` imitates other processors to find what breaks the rules.
"""

import contextlib

import torch
from torch import nn

# Rounding of float64 alone stays below 1e-11 in the networks of these tests.
RTOL, ATOL = 1e-7, 1e-8
# Of weights that were computed anew and stored in float32, after some layers
# in float64: their errors add up, but nothing decides on them.
STORED = dict(rtol=1e-4, atol=1e-5)


def double(data):
    """Return tensors, modules or nested lists and dicts of them in float64."""
    if isinstance(data, dict):
        return {name: double(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return type(data)(double(value) for value in data)
    if isinstance(data, torch.Tensor) and not data.is_floating_point():
        return data
    return data.double()


def close(found, expected, rtol=RTOL, atol=ATOL):
    """Assert that results are equal up to the rounding of float64.

    Args:
        found: Tensor, or nested lists and dicts of tensors.
        expected: The same.
        rtol (float): Share of each value that it may be off.
        atol (float): The same in numbers.
    """
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            try:
                close(found[name], value, rtol, atol)
            except AssertionError as error:
                raise AssertionError(f'{name}: {error}') from error
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            close(one, other, rtol, atol)
    else:
        torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


@contextlib.contextmanager
def err_as(model, dtype=torch.bfloat16, seed=0):
    """Let the layers of a network err as if computed in a smaller format.

    Weights and inputs of convolutions and linear layers, outputs of these and
    of normalisations, and the gradients on their way back are multiplied by
    ``1 + e`` with ``|e|`` up to half a step of the format.

    Args:
        model (nn.Module): Of float32 or float64; as before afterwards.
        dtype (torch.dtype): The format. Defaults to bfloat16.
        seed (int): Of the errors. Defaults to 0.
    """
    generator = torch.Generator().manual_seed(seed)
    half = torch.finfo(dtype).eps / 2

    def erring(x):
        error = torch.rand(x.shape, generator=generator, dtype=x.dtype) * 2 - 1
        return x * (1 + half * error)

    def on_input(module, args):
        return tuple(erring(x) for x in args)

    def on_output(module, args, output):
        output = erring(output)
        if output.requires_grad:
            output.register_hook(erring)
        return output

    hooks, weights = [], []
    products = (nn.modules.conv._ConvNd, nn.Linear)
    for module in model.modules():
        if isinstance(module, products):
            weights.append((module.weight, module.weight.detach().clone()))
            hooks.append(module.register_forward_pre_hook(on_input))
        if isinstance(module, (*products, nn.modules.batchnorm._BatchNorm)):
            hooks.append(module.register_forward_hook(on_output))
    try:
        with torch.no_grad():
            for weight, kept in weights:
                weight.copy_(erring(kept))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for weight, kept in weights:
                weight.copy_(kept)


def distances(found, exact):
    """Length of the difference as a share of the exact length, by name.

    Args:
        found (dict): Tensors.
        exact (dict): Tensors of the same names.
    """
    assert found.keys() == exact.keys()
    result = {}
    for name, value in exact.items():
        value = value.detach().double()
        result[name] = ((found[name].detach() - value).norm() / value.norm()).item()
    return result


def as_close_as(found, exact, erring):
    """Assert that tensors of reduced precision are as good as it allows.

    Each one lies at most twice as far from the exact result as the farthest
    of the results that err as that precision does.

    Args:
        found (dict): Tensors of reduced precision by name.
        exact (dict): The same of float64.
        erring (Sequence[dict]): The same, computed under ``err_as``.
    """
    reach = [distances(one, exact) for one in erring]
    for name, value in distances(found, exact).items():
        bound = 2 * max(one[name] for one in reach)
        assert value <= bound, (
            f'{name}: {value:.2g} from the exact one, not {bound:.2g}'
        )
