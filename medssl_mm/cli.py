"""The console command ``medssl``: the tools, also where there is no folder of them."""

import ast
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType

from medssl_mm.errors import COMMAND, UserError, run_tool, similar
from medssl_mm.files import shipped
from medssl_mm.version import __version__

__all__ = ['commands', 'main']

# Where the name of a command is not that of its file.
_NAMES = {
    'prepare_data': 'import',
    'run_table': 'table',
    'convert_checkpoint': 'convert',
    'make_report': 'report',
}
_FOR_DEVELOPERS = ('model_index.py',)
_FIRST = ('import', 'train', 'test', 'predict', 'report', 'table', 'transfer')
# Started by bash; the other shell scripts work on the source tree.
_LAUNCHERS = ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh')
_USAGE = """usage: medssl COMMAND [options]
       medssl COMMAND --help
       medssl --version

Self-supervised learning on medical images. A config is a file, or
medssl_mm::PATH for one that comes with the package, such as
medssl_mm::selfsup/mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64.py

example: medssl import phantom --out data/phantom

commands:
"""


def commands() -> dict[str, Path]:
    """Find what there is: the name of each command and the file that does it."""
    folder = shipped('tools')
    files = [*folder.glob('*.py'), *(folder / 'analysis').glob('*.py')]
    files = [file for file in files if file.name not in _FOR_DEVELOPERS]
    files += [folder / name for name in _LAUNCHERS]
    named = {_NAMES.get(f.stem, f.stem).replace('_', '-'): f for f in sorted(files)}
    return {name: named[name] for name in dict.fromkeys((*_FIRST, *named))}


def _purpose(path: Path) -> str:
    """First line of a tool's own description."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py':
        return (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]
    return text.splitlines()[1].removeprefix('# ').partition(': bash')[0] + '.'


def _listed() -> str:
    names = commands()
    width = max(map(len, names)) + 2
    columns = shutil.get_terminal_size().columns
    lines = [
        textwrap.fill(
            _purpose(path),
            max(columns, 60),
            initial_indent=f'  {name:<{width}}',
            subsequent_indent=' ' * (width + 2),
        )
        for name, path in names.items()
    ]
    return _USAGE + '\n'.join(lines) + '\n'


def _run(name: str, path: Path, arguments: Sequence[str]) -> None:
    if path.stem.endswith('train'):
        os.environ[COMMAND] = shlex.join(['medssl', name, *arguments])
    if path.suffix == '.sh':
        os.environ.setdefault('PYTHON', sys.executable)
        sys.stdout.flush()
        os.execvp('bash', ['bash', str(path), *arguments])
    sys.argv = [f'medssl {name}', *arguments]
    if not {'-h', '--help'} & set(arguments):
        _become(path)
        return
    text = StringIO()
    try:
        with redirect_stdout(text):
            _become(path)
    finally:
        print(_with_own_names(text.getvalue()), end='')


def _become(path: Path) -> None:
    """Do what Python does with a script, but keep its name in ``sys.argv``."""
    script = ModuleType('__main__')
    script.__file__ = str(path)
    sys.modules['__main__'] = script  # where workers look for its functions
    exec(compile(path.read_bytes(), path, 'exec'), vars(script))


def _with_own_names(text: str) -> str:
    """Write the commands of examples as they are called here."""
    for name, path in commands().items():
        inside = re.escape(path.relative_to(shipped('tools')).as_posix())
        text = re.sub(rf'(python|bash) tools/{inside}', f'medssl {name}', text)
    return text


def _main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ('-h', '--help', 'help'):
        print(_listed(), end='')
        return
    name, *rest = arguments
    if name == '--version':
        print(f'medssl_mm {__version__}')
        return
    known = commands()
    if name not in known:
        raise UserError(f'there is no command {name!r}{similar(name, known)}')
    _run(name, known[name], rest)


def main() -> None:
    """Run the command line."""
    run_tool(_main)
