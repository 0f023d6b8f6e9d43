"""The rounding of another processor, imitated on this one.

Sums, products of matrices and elementary functions differ in the last bits
from one processor, library version and number of threads to the next. With
``MEDSSL_TEST_ROUNDING=SEED`` in the environment every such result of torch is
moved by up to two units in its last place, in the processes of distributed
tests, too. What a test asserts must hold for every seed.

As on a real processor, the same operation on the same numbers gives the same
bits each time, and an exact result (small integers, halves) stays exact; the
same rows in a batch of another size may come out differently.
"""

import contextlib
import os
import zlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Results that depend on the order of a sum, on fused multiplication and
# addition, or on the polynomial behind a function.
INEXACT = {
    *('mm', 'bmm', 'addmm', 'baddbmm', 'addmv', 'mv', 'dot', 'vdot'),
    *('convolution', 'convolution_backward', '_euclidean_dist', '_cdist_forward'),
    *('native_batch_norm', 'native_batch_norm_backward', '_native_batch_norm_legit'),
    *('native_layer_norm', 'native_layer_norm_backward'),
    *('native_group_norm', 'native_group_norm_backward'),
    *('sum', 'mean', 'var', 'std', 'var_mean', 'std_mean', 'cumsum', 'prod'),
    *('norm', 'linalg_vector_norm', 'logsumexp', 'nansum', 'trace'),
    *('_softmax', '_log_softmax', '_softmax_backward_data'),
    *('_log_softmax_backward_data', 'exp', 'log', 'log2', 'log10', 'log1p', 'expm1'),
    *('sigmoid', 'tanh', 'erf', 'sin', 'cos', 'atan2', 'pow', 'rsqrt', 'softplus'),
    *('gelu', 'gelu_backward', 'silu', 'lerp', 'lerp_', 'addcmul', 'addcdiv'),
    *('_foreach_lerp_', '_foreach_addcmul_', '_foreach_addcdiv_', '_foreach_lerp'),
    *('upsample_bilinear2d', 'upsample_bilinear2d_backward'),
    *('upsample_bicubic2d', 'grid_sampler_2d', 'grid_sampler_2d_backward'),
    *('_adaptive_avg_pool2d', '_adaptive_avg_pool2d_backward'),
    *('avg_pool2d', 'avg_pool2d_backward', '_upsample_bilinear2d_aa'),
}
# type: (integer of that size, bits of an exact result that are zero,
# share of the results that move, in 1/256)
FORMATS = {
    torch.float64: (torch.int64, 20, 256),
    torch.float32: (torch.int32, 8, 256),
    # Computed in float32, so only what lay between two numbers moves.
    torch.bfloat16: (torch.int16, 3, 16),
    torch.float16: (torch.int16, 3, 16),
}


def imitated_rounding():
    """Return the context that the environment asks for, or an empty one."""
    seed = os.environ.get('MEDSSL_TEST_ROUNDING')
    return OtherRounding(int(seed)) if seed else contextlib.nullcontext()


class OtherRounding(TorchDispatchMode):
    """Moves the results of inexact operations in their last places.

    Args:
        seed (int): Which imitated processor.
    """

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in INEXACT:
            if result is None:  # in place, on lists
                self._move_all(args[0], name)
            else:
                self._move_all(result, name)
        return result

    def _move_all(self, result, name):
        if isinstance(result, torch.Tensor):
            if result.dtype in FORMATS and result.device.type == 'cpu':
                self._move(result, name)
        elif isinstance(result, (list, tuple)):
            for part in result:
                self._move_all(part, name)

    def _move(self, result, name):
        integer, exact_bits, share = FORMATS[result.dtype]
        bits = result.detach().clone().view(integer)
        # A hash of value, size and operation: the same each time.
        salt = zlib.crc32(repr((self.seed, name, tuple(result.shape))).encode())
        mixed = (bits.long() ^ salt) * 0x2545F4914F6CDD1D
        mixed = mixed ^ (mixed >> 29)
        most = 2 if share == 256 else 1
        step = ((mixed >> 7) % (2 * most + 1)) - most
        inexact = (bits & ((1 << exact_bits) - 1)) != 0
        moves = inexact & (((mixed >> 17) & 255) < share)
        moved = bits + torch.where(moves, step, 0).to(integer)
        result.copy_(moved.view(result.dtype))
