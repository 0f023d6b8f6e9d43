"""A Slurm of one node, on this machine, for as long as tests need it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.waiting import PATIENCE

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'srun', 'scontrol')
# Wait for nothing, but give a job that is told to end all the time it may need.
CONFIG = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
# A job that was put back waits for this to pass.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=300
MinJobAge=3600
JobRequeue=1
MailProg=/bin/true
NodeName={host} CPUs={cpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES State=UP OverSubscribe=FORCE:4
"""


def missing():
    """Name what is not installed here, or ''."""
    if os.geteuid() != 0:
        return 'root, as whom slurmd runs'
    path = os.environ.get('PATH', '') + ':/usr/sbin'
    return ', '.join(name for name in PROGRAMS if not shutil.which(name, path=path))


@contextlib.contextmanager
def one_node(folder):
    """Start a controller and a node; end them and their jobs afterwards.

    Yields:
        dict[str, str]: Environment in which sbatch, srun and scontrol find them.
    """
    folder = Path(folder)
    for name in ('state', 'spool'):
        (folder / name).mkdir()
    key = folder / 'munge.key'
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().partition('.')[0]
    ports = [_free_port() for _ in range(2)]
    config = folder / 'slurm.conf'
    config.write_text(
        CONFIG.format(folder=folder, host=host, ports=ports, cpus=os.cpu_count())
    )
    environment = {
        'SLURM_CONF': str(config),
        'PATH': f'{os.environ["PATH"]}:/usr/sbin',
    }
    munged = ['munged', '--foreground', '--force', f'--socket={folder}/munge.socket']
    munged += [f'--key-file={key}', f'--pid-file={folder}/munge.pid']
    munged += [f'--log-file={folder}/munge.log', f'--seed-file={folder}/munge.seed']
    with contextlib.ExitStack() as stack:
        for command in (munged, ['slurmctld', '-D', '-i'], ['slurmd', '-D']):
            stack.enter_context(_running(command, environment, folder))
        _wait_for(lambda: 'idle' in ask(environment, 'sinfo', '-h', '-o', '%T'))
        try:
            yield environment
        finally:
            for number in ([], ['--signal=KILL']):  # what failed may not want to end
                ask(environment, 'scancel', *number, '--full', '-u', 'root')
            _wait_for(lambda: not ask(environment, 'squeue', '-h'))


def ask(environment, *command):
    """Return what a command of Slurm prints."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout.strip()


def facts(environment, job):
    """Return what Slurm knows of a job, by name."""
    shown = ask(environment, 'scontrol', 'show', 'job', '-o', job)
    return dict(fact.split('=', 1) for fact in shown.split() if '=' in fact)


def _free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def _wait_for(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError('Slurm does not come to what the test waits for')
        time.sleep(0.2)


@contextlib.contextmanager
def _running(command, environment, folder):
    with open(folder / f'{command[0]}.out', 'w') as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
