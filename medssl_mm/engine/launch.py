"""From a config file and command-line options to a Runner."""

import ast
import copy
import difflib
import inspect
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from medssl_mm import compat, files
from medssl_mm.engine import checkpoints, taps
from medssl_mm.engine.completion import complete
from medssl_mm.engine.reading import config_name, read_config
from medssl_mm.engine.trackers import add_trackers
from medssl_mm.errors import UserError, similar
from medssl_mm.functional import distributed
from medssl_mm.registry import build_of

__all__ = [
    'apply_options',
    'load_config',
    'make_runner',
    'parse_options',
    'write_metrics',
]

# Top-level keys that a config may have besides the arguments of a Runner.
_FURTHER_KEYS = (
    'activation_checkpointing',
    'allow_other_dilation',
    'allow_seen',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'data_root',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'split',
    'sync_bn',
)


def load_config(
    path: str | Path, options: Iterable[str] | dict[str, Any] = ()
) -> Config:
    """Read a config and apply ``key=value`` options to it.

    What it leaves to its data is filled in, see
    :mod:`medssl_mm.engine.completion`. ``work_dir`` becomes
    ``work_dirs/<name of the file>`` if it is not set.

    Args:
        path (str | Path): The config file, or several joined by ``+``, see
            :func:`medssl_mm.engine.reading.read_config`.
        options (Iterable[str] | dict): Settings such as
            ``train_cfg.max_epochs=2``, or parsed ones. Defaults to ().

    Raises:
        UserError: The file or one of its bases is missing or faulty, an
            option names a key that does not exist, or the data that settings
            depend on is not there.
    """
    config = read_config(path)
    apply_options(
        config, options if isinstance(options, dict) else parse_options(options)
    )
    complete(config)
    if config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs', config_name(path)))
    return config


def parse_options(options: Iterable[str]) -> dict[str, Any]:
    """Turn ``['a.b=1', 'c=x']`` into ``{'a.b': 1, 'c': 'x'}``.

    A value is a Python literal, or a plain string; ``1,2`` is a list. Digits joined
    by underscores are a name, ``2_2`` no 22.
    """
    parsed = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals or not key:
            raise UserError(
                f'--cfg-options takes KEY=VALUE, got {option!r}; write for '
                'instance train_cfg.max_epochs=2'
            )
        parsed[key] = _parse_value(value)
    return parsed


def apply_options(config: Config, options: dict[str, Any]) -> None:
    """Put parsed options into a config; the keys must make sense there.

    A key may be new where a constructor will check it, that is, in a dict
    with a ``type``. Elsewhere a name that resembles an existing one is taken
    for a slip.

    Raises:
        UserError: Names the key and, where possible, the one that was meant.
    """
    for key, value in options.items():
        _check_key(config, key)
        # One by one: a later key may go into what an earlier one brings. A copy:
        # merging takes `_delete_` out of what it is given.
        config.merge_from_dict({key: copy.deepcopy(value)})


def make_runner(
    config: Config,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: str | None = None,
    auto_scale_lr: bool = False,
    seed: int | None = None,
    launcher: str = 'none',
    checkpoint: str | None = None,
    trackers: Iterable[str] = (),
    allow_seen: bool = False,
) -> Runner:
    """Build the Runner of a config, joining the process group first.

    Args:
        config (Config): What ``load_config`` returned; it is changed.
        work_dir (str, optional): Folder of logs and checkpoints. Defaults to
            that of the config.
        resume (str, optional): Checkpoint to continue from, ``auto`` for the
            newest intact one of the work directory. Defaults to None.
        amp (str, optional): ``bfloat16`` or ``float16``. Defaults to None.
        auto_scale_lr (bool): Scale the learning rate with the global batch.
            Defaults to False.
        seed (int, optional): Random seed. Defaults to that of the config.
        launcher (str): ``none``, ``pytorch`` or ``slurm``. Defaults to 'none'.
        checkpoint (str, optional): Weights to test. Defaults to None.
        trackers (Iterable[str]): Names of :mod:`medssl_mm.engine.trackers`.
            Defaults to ().
        allow_seen (bool): Score cases all the same that the weights have seen
            where they must not, see :mod:`medssl_mm.provenance`. Defaults to
            False.
    """
    _check_launcher(launcher)
    if not checkpoint:
        _check_loop(config)
        _check_schedules(config)
    config.launcher = launcher
    config.setdefault('runner_type', 'medssl_mm.Runner')
    if work_dir is not None:
        config.work_dir = work_dir
    add_trackers(config, trackers)
    if seed is not None:
        config.setdefault('randomness', {})
        config.randomness.seed = seed
    if allow_seen:
        config.allow_seen = True
    taps.pass_on_allowance(config)
    if amp:
        _set_amp(config, amp)
    if auto_scale_lr:
        _set_auto_scale_lr(config)
    if resume == 'auto':
        config.resume = 'auto'
    elif resume:
        config.update(resume=True, load_from=_existing(resume))
    if checkpoint:
        config.update(resume=False, load_from=_existing(checkpoint))
    if launcher != 'none':
        timeout = config.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        compat.init_process_group(launcher, timeout or compat.COLLECTIVE_TIMEOUT)
        distributed.follow_ranks()
    try:
        if checkpoint:
            return build_of(RUNNERS, config, config.filename)
        # The Runner claims it again to train; what is built writes there already.
        with checkpoints.claim_folder(config.work_dir):
            return build_of(RUNNERS, config, config.filename)
    except OSError as error:
        raise UserError(
            f'cannot set up the run in {config.work_dir}: {error}'
        ) from error


def _check_loop(config: Config) -> None:
    """Refuse settings that the training loop does not have."""
    loop = config.get('train_cfg')
    if not isinstance(loop, Mapping):
        return
    by_epoch = loop.get('by_epoch', loop.get('type') == 'EpochBasedTrainLoop')
    if loop.get('type') not in (None, 'EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        return  # one of the user's own
    kind = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    known = list(inspect.signature(kind.__init__).parameters)[3:]
    unit, other = ('epochs', 'iters') if by_epoch else ('iters', 'epochs')
    unknown = [key for key in loop if key not in (*known, 'type', 'by_epoch')]
    if unknown:
        advice = similar(unknown[0], known)
        if unknown[0] == f'max_{other}':
            advice = (
                f'; it goes by {unit}: set train_cfg.max_{unit}, or '
                f'train_cfg.by_epoch={not by_epoch} with schedules and checkpoints '
                'that do so, too'
            )
        raise UserError(f'train_cfg has no {unknown[0]!r} in this config{advice}')
    if not isinstance(loop.get(f'max_{unit}'), int):
        raise UserError(
            f'train_cfg.max_{unit} must be a whole number, got '
            f'{loop.get(f"max_{unit}")!r}'
        )


def _check_schedules(config: Config) -> None:
    """Refuse parts of a schedule that begin when the run has ended."""
    loop = config.get('train_cfg') or {}
    schedules = config.get('param_scheduler') or ()
    if isinstance(schedules, Mapping):
        schedules = (schedules,)
    for number, part in enumerate(schedules):
        if not isinstance(part, Mapping):
            continue  # of several optimizers, or built already
        unit = 'epochs' if part.get('by_epoch', True) else 'iters'
        length = loop.get(f'max_{unit}')
        begin, end = part.get('begin', 0), part.get('end', length)
        if end is not None and begin >= end:
            raise UserError(
                f'param_scheduler.{number} ({part.get("type")}) begins at {begin} and '
                f'ends at {end} {unit}, in a run of train_cfg.max_{unit}={length}: '
                f'train for more than {begin}, or shorten what comes before, such as '
                f'param_scheduler.{max(number - 1, 0)}.end=N '
                f'param_scheduler.{number}.begin=N'
            )


def _check_launcher(launcher: str) -> None:
    if launcher == 'none' and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise UserError(
            'this is one of several processes (WORLD_SIZE is '
            f'{os.environ["WORLD_SIZE"]}), but --launcher is none: add '
            '--launcher pytorch, or use tools/dist_train.sh'
        )


def write_metrics(path: str | Path, metrics: Mapping[str, Any]) -> None:
    """Write the metrics of a test as JSON, all or nothing; rank 0 only."""
    if not distributed.is_main_process():
        return
    plain = checkpoints.to_plain(dict(metrics), 'metrics')
    files.write_json(path, plain)


def _existing(path: str | Path) -> str:
    path = str(path)
    if '://' in path:
        return path
    damage = checkpoints.damage_of(path)
    if damage:
        raise UserError(f'checkpoint {path} {damage}')
    return path


def _set_amp(config: Config, dtype: str) -> None:
    wrapper = config.get('optim_wrapper')
    if wrapper is None:
        raise UserError('--amp: the config has no optim_wrapper')
    known = ('OptimWrapper', 'medssl_mm.AutocastOptimWrapper')
    if wrapper.get('type', 'OptimWrapper') not in (*known, 'AmpOptimWrapper'):
        raise UserError(
            f'--amp replaces OptimWrapper, but the config has '
            f'{wrapper["type"]}; set mixed precision in the config'
        )
    wrapper.pop('loss_scale', None)
    wrapper.update(type='medssl_mm.AutocastOptimWrapper', dtype=dtype)


def _set_auto_scale_lr(config: Config) -> None:
    settings = config.get('auto_scale_lr') or {}
    if 'base_batch_size' not in settings:
        raise UserError(
            '--auto-scale-lr: the config does not say for which global batch '
            'size its learning rate is meant; add auto_scale_lr=dict('
            'base_batch_size=...)'
        )
    config.auto_scale_lr.enable = True


def _literal(text: str) -> Any:
    """Read a Python literal; digits joined by underscores are names of things."""
    text = text.strip()
    tree = ast.parse(text, mode='eval')
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            words = ast.get_source_segment(text, node) or ''
            if re.fullmatch(r'\d+(_\d+)+', words):
                node.value = words
    return ast.literal_eval(tree)


def _parse_value(text: str) -> Any:
    try:
        value = _literal(text)
    except (SyntaxError, ValueError):
        words = {'true': True, 'false': False, 'none': None}
        if text.lower() in words:
            return words[text.lower()]
        inner = re.fullmatch(r'[\[(](.*)[\])]', text)
        if inner:
            return [_parse_value(t.strip()) for t in inner[1].split(',') if t]
        if ',' in text:
            return [_parse_value(part.strip()) for part in text.split(',')]
        return text
    return list(value) if isinstance(value, tuple) else value


def _check_key(config: Config, key: str) -> None:
    place: Any = config._cfg_dict
    walked: list[str] = []
    *parents, last = key.split('.')
    for part in parents:
        place = _step_into(place, part, walked, key)
    if isinstance(place, (list, tuple)):
        _step_into(place, last, walked, key)
        return
    if not isinstance(place, dict):
        raise UserError(
            f'--cfg-options {key}: {".".join(walked)} is {place!r} and has no keys'
        )
    if last in place or 'type' in place:
        return
    if walked:
        names = list(place)
        if not difflib.get_close_matches(last, names, 1, 0.8):
            return
    else:
        arguments = inspect.signature(Runner.__init__).parameters
        if last in arguments or last in _FURTHER_KEYS:
            return
        names = [*place, *arguments, *_FURTHER_KEYS]
    where = f'{".".join(walked)} of the config' if walked else 'the config'
    raise UserError(
        f'--cfg-options {key}: {where} has no key {last!r}' + similar(last, names)
    )


def _step_into(place: Any, part: str, walked: list[str], key: str) -> Any:
    where = '.'.join(walked) or 'the config'
    if isinstance(place, (list, tuple)):
        if not part.isdigit() or int(part) >= len(place):
            raise UserError(
                f'--cfg-options {key}: {where} is a list of {len(place)}; '
                f'write an index from 0 to {len(place) - 1} instead of '
                f'{part!r}'
            )
        walked.append(part)
        return place[int(part)]
    if isinstance(place, dict) and part in place:
        walked.append(part)
        value = place[part]
        return ConfigDict() if value is None else value
    names = list(place) if isinstance(place, dict) else []
    raise UserError(
        f'--cfg-options {key}: {where} has no key {part!r}' + similar(part, names)
    )
