"""Files of weights as the projects that published them wrote theirs."""

import collections
import pickle
import struct
import sys
import types
from contextlib import contextmanager

import numpy as np
import torch

from medssl_mm.converters.tensorflow import crc32c, masked


def network_of(name, **options):
    """A network of torchvision with statistics as after training, in float64."""
    import torchvision

    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(**options)
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
            part.weight.data.uniform_(0.5, 1)
            part.bias.data.normal_(0, 0.1)
    return network.eval()


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def save_torch(path, content, **options):
    torch.save(content, path, **options)
    return path


# ----------------------------------------------------------------- TensorFlow


def varint(value):
    out = b''
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def block(entries, restart=16):
    """A block of a table, with shared starts of its keys."""
    out, restarts, last = b'', [], b''
    for count, (key, value) in enumerate(entries):
        shared = 0
        if count % restart == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    restarts = restarts or [0]
    out += struct.pack(f'<{len(restarts)}I', *restarts)
    return out + struct.pack('<I', len(restarts))


def write_bundle(name, arrays, shards=2):
    """Write NAME.index and NAME.data-*, several blocks in the index."""
    kinds = {'float32': 1, 'int64': 9}
    name.parent.mkdir(exist_ok=True)
    files = [b''] * shards
    entries = [(b'', field(1, shards) + field(3, field(1, 1)))]
    for number, key in enumerate(sorted(arrays)):
        array, shard = np.ascontiguousarray(arrays[key]), number % shards
        data = array.tobytes()
        shape = b''.join(field(2, field(1, side)) for side in array.shape)
        kind = 7 if array.dtype.kind == 'S' else kinds[str(array.dtype)]  # 7: text
        entry = field(1, kind) + field(2, shape) + field(3, shard)
        entry += field(4, len(files[shard])) + field(5, len(data))
        entry += varint(6 << 3 | 5) + struct.pack('<I', masked(crc32c(data)))
        entries.append((key.encode(), entry))
        files[shard] += data
    out, handles = b'', []

    def add(content):
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        out += content + b'\0' + struct.pack('<I', masked(crc32c(content + b'\0')))
        return handle

    for start in range(0, len(entries), 50):
        part = entries[start : start + 50]
        handles.append((part[-1][0] + b'\xff', add(block(part))))
    footer = add(block([]))
    footer += add(block(handles, restart=1))
    out += footer.ljust(40, b'\0') + struct.pack('<Q', 0xDB4775248B80FB57)
    name.with_name(f'{name.name}.index').write_bytes(out)
    for shard, data in enumerate(files):
        file = f'{name.name}.data-{shard:05d}-of-{shards:05d}'
        name.with_name(file).write_bytes(data)
    return name


def hwio(weight):
    return weight.detach().permute(2, 3, 1, 0).numpy().copy()


def tensorflow_variables(network):
    """Names of SimCLR: numbers by creation, a shortcut before its block."""
    pairs = [(network.conv1, network.bn1)]
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for unit in stage:
            if unit.downsample is not None:
                pairs.append(tuple(unit.downsample))
            pairs += [
                (getattr(unit, f'conv{i}'), getattr(unit, f'bn{i}')) for i in '123'
            ]
    arrays = {
        'global_step': np.array(7, np.int64),
        'head_supervised/linear_layer/dense/kernel': np.zeros((4, 3), np.float32),
        'head_supervised/linear_layer/dense/bias': np.zeros(3, np.float32),
        'base_model/conv2d/kernel/Momentum': np.zeros((1, 1, 1, 1), np.float32),
        '_CHECKPOINTABLE_OBJECT_GRAPH': np.array(b'a text'),
    }
    for number, (conv, norm) in enumerate(pairs):
        end = f'_{number}' if number else ''
        arrays[f'base_model/conv2d{end}/kernel'] = hwio(conv.weight)
        for ours, theirs in (
            ('weight', 'gamma'),
            ('bias', 'beta'),
            ('running_mean', 'moving_mean'),
            ('running_var', 'moving_variance'),
        ):
            arrays[f'base_model/batch_normalization{end}/{theirs}'] = (
                getattr(norm, ours).detach().numpy()
            )
    return arrays


# ---------------------------------------------------------------------- Haiku


def haiku_variables(network):
    """Parameters and state of BYOL; not in the order of the network."""
    params, state = {}, {}

    def add_conv(name, conv):
        params[name] = dict(w=hwio(conv.weight))

    def add_norm(name, norm):
        def shaped(value):
            return value.detach().numpy().reshape(1, 1, 1, -1)

        params[name] = dict(scale=shaped(norm.weight), offset=shaped(norm.bias))
        for ema, value in (
            ('mean_ema', norm.running_mean),
            ('var_ema', norm.running_var),
        ):
            value = shaped(value)
            state[f'{name}/~/{ema}'] = dict(
                hidden=value, average=value, counter=np.array(5, np.int32)
            )

    root = 'res_net50/~'
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    for g, stage in enumerate(stages):
        for b, unit in enumerate(stage):
            name = f'{root}/block_group_{g}/~/block_{b}/~'
            if unit.downsample is not None:
                add_conv(f'{name}/shortcut_conv', unit.downsample[0])
                add_norm(f'{name}/shortcut_batchnorm', unit.downsample[1])
            for c in range(3):
                add_conv(f'{name}/conv_{c}', getattr(unit, f'conv{c + 1}'))
                add_norm(f'{name}/batchnorm_{c}', getattr(unit, f'bn{c + 1}'))
    add_conv(f'{root}/initial_conv', network.conv1)
    add_norm(f'{root}/initial_batchnorm', network.bn1)
    params['projector/~/linear'] = dict(w=np.zeros((4, 2), np.float32))
    params['predictor/~/batch_norm'] = dict(scale=np.ones(2, np.float32))
    state['predictor/~/batch_norm/~/mean_ema'] = dict(average=np.ones(2, np.float32))
    params['classifier/linear'] = dict(b=np.zeros(2, np.float32))
    return params, state


@contextmanager
def foreign_packages(classes):
    """Packages that only the writer of a pickle has: classes by module."""
    made = {}
    for full, parts in classes.items():
        names = full.split('.')
        for count in range(1, len(names) + 1):
            name = '.'.join(names[:count])
            made.setdefault(name, types.ModuleType(name))
        for part in parts:
            part.__module__ = full
            setattr(made[full], part.__name__, part)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


class FlatMapping:
    """Of Haiku: pickled as itself called with a dict."""

    def __init__(self, content):
        self.content = content

    def __reduce__(self):
        return FlatMapping, (self.content,)


def _create_namedtuple(name, fields, module):
    raise AssertionError('must not run')


def _create_array(make, arguments, state, more):
    raise AssertionError('must not run')


def write_haiku(path, params, state, by_dill=True):
    """As DeepMind's checkpointer does, by dill, or as plain pickle would."""
    fields = 'online_params target_params online_state target_state opt_state'
    State = collections.namedtuple('_ByolExperimentState', fields)
    Lars = collections.namedtuple('LarsState', 'trace')

    class Pickler(pickle._Pickler):
        """dill makes named tuples anew from their names, and arrays itself."""

        def save_type(self, obj):
            if by_dill and obj in (State, Lars):
                arguments = (obj.__name__, obj._fields, obj.__module__)
                return self.save_reduce(_create_namedtuple, arguments, obj=obj)
            return pickle._Pickler.save_type(self, obj)

        def save_array(self, obj):
            if by_dill:
                arguments = (*obj.__reduce__(), None)
                return self.save_reduce(_create_array, arguments, obj=obj)
            return self.save_reduce(*obj.__reduce__(), obj=obj)

        dispatch = {
            **pickle._Pickler.dispatch,
            type: save_type,
            np.ndarray: save_array,
        }

    content = dict(
        experiment_state=State(
            FlatMapping({k: FlatMapping(v) for k, v in params.items()}),
            FlatMapping({k: v for k, v in params.items() if 'projector' in k}),
            FlatMapping(state),
            FlatMapping({}),
            Lars(FlatMapping({})),
        ),
        step=7,
        rng=np.zeros(2, np.uint32),
    )
    with (
        foreign_packages(
            {
                'dill._dill': [_create_namedtuple, _create_array],
                'haiku._src.data_structures': [FlatMapping],
                'byol.byol_experiment': [State, Lars],
            }
        ),
        open(path, 'wb') as file,
    ):
        Pickler(file, protocol=2).dump(content)
    return path
