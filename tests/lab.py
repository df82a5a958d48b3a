"""A real Slurm on this machine, for tests: one node with four pretended GPUs, on the loopback device alone.

`slurm_lab` starts munge, the controller and the node's daemon from the distribution's packages, with a configuration
of their own in a scratch folder, and ends them by their process ids. No system service and no database is touched.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
PACKAGES = "slurmctld slurmd slurm-client munge"
SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))

SLURM_CONF = """\
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
# A requeued job waits until the old credential has expired: ten seconds instead of the usual two minutes.
AuthInfo=socket={folder}/run/munge.sock,cred_expire=10
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=16000 Gres=gpu:h200:4 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=1-0 DefMemPerCPU=500 PriorityTier=1 State=UP
PartitionName=urgent Nodes={host} MaxTime=1-0 DefMemPerCPU=500 PriorityTier=2 PreemptMode=OFF State=UP
"""


def missing() -> str | None:
    """Why there can be no lab on this machine; None where there can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=SEARCH) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install --no-install-recommends {PACKAGES}"
    if os.geteuid() != 0:
        return "the lab's daemons and pretended devices need root"
    return None


@dataclass(frozen=True)
class Lab:
    """A running Slurm.

    Attributes:
        folder: Its scratch folder, with the daemons' logs.
        environment: What its clients need in their environment.
    """

    folder: Path
    environment: dict[str, str]

    def call(self, *command: str) -> str:
        """Runs one of Slurm's programs and returns what it prints."""
        done = subprocess.run(command, env=self.environment, text=True, capture_output=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """State and comment of every job that Slurm still knows, by id; the comment names rule and wildcards."""
        lines = self.call("squeue", "--noheader", "--states=all", "--format=%i|%T|%k").splitlines()
        return {identity: (state, comment) for identity, state, comment in (line.split("|", 2) for line in lines)}


@contextmanager
def slurm_lab(folder: Path) -> Iterator[Lab]:
    """Starts Slurm in an empty folder and ends it.

    Raises:
        RuntimeError: It did not come up; the daemons' last lines are in the text.
    """
    for name in ("run", "log", "state", "spool", "dev", "bin"):
        (folder / name).mkdir(parents=True)
    # Munge refuses a folder that others may write to.
    folder.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    for index in range(4):
        # Slurm sets CUDA_VISIBLE_DEVICES for character devices only.
        os.mknod(folder / f"dev/nvidia{index}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    controller_port, node_port = _free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        SLURM_CONF.format(folder=folder, host=host, controller_port=controller_port, node_port=node_port)
    )
    (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu Type=h200 File={folder}/dev/nvidia[0-3]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    path = os.pathsep.join((str(folder / "bin"), SEARCH))
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(configuration)}
    # The jobstep executor clears Slurm's variables before it calls srun.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {shutil.which("srun", path=SEARCH)} "$@"\n')
    srun.chmod(0o755)
    munge = [
        "munged",
        "--force",
        f"--socket={folder}/run/munge.sock",
        f"--key-file={folder}/munge.key",
        f"--pid-file={folder}/run/munged.pid",
        f"--log-file={folder}/log/munged.log",
        f"--seed-file={folder}/run/munged.seed",
    ]
    lab = Lab(folder, environment)
    guard = _guard(lab)
    try:
        for command in (munge, ["slurmctld"], ["slurmd"]):
            lab.call(*command)
        _await_idle(lab)
        yield lab
    finally:
        _end(lab)
        guard.kill()
        guard.wait()


def _guard(lab: Lab) -> subprocess.Popen[bytes]:
    """Ends the lab should this process be killed before it can."""
    alive, pid_files = f"kill -0 {os.getpid()}", lab.folder / "run"
    script = f"while {alive} 2>/dev/null; do sleep 1; done; scancel --user=root; sleep 3; kill $(cat {pid_files}/*.pid)"
    return subprocess.Popen(["sh", "-c", script], env=lab.environment, start_new_session=True)


def _await_idle(lab: Lab, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=lab.environment, text=True, capture_output=True, check=False
        )
        if done.returncode == 0 and set(done.stdout.split()) == {"idle"}:
            return
        time.sleep(0.2)
    logs = "".join(path.read_text()[-1000:] for path in sorted((lab.folder / "log").glob("*.log")))
    raise RuntimeError(f"Slurm did not come up in {seconds:.0f} s: {logs}")


def _end(lab: Lab) -> None:
    """Cancels what still runs, then ends the daemons."""
    with suppress(AssertionError):
        lab.call("scancel", "--user=root", "--signal=KILL", "--full")
        lab.call("scancel", "--user=root")
        time.sleep(1)
    for name in ("slurmd", "slurmctld", "munged"):
        pid_file = lab.folder / "run" / f"{name}.pid"
        if not pid_file.exists():
            continue
        pid = int(pid_file.read_text())
        for signal in (SIGTERM, SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, signal)
            if _ended(pid):
                break


def _ended(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
