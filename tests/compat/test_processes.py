import pytest

from medssl_mm import compat
from medssl_mm.errors import UserError


def test_launchers_say_what_starts_them(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r'RANK.*tools/dist_train\.sh'):
        compat.init_process_group('pytorch')
    with pytest.raises(UserError, match=r'srun.*tools/slurm_train\.sh'):
        compat.init_process_group('slurm')
    with pytest.raises(UserError, match='pytorch or slurm'):
        compat.init_process_group('mpi')
