"""A Slurm cluster of three nodes on one machine: munged, slurmctld, and a slurmd per node.

It needs root and the packages slurmctld, slurmd, slurm-client and munge. Without cgroups and without
an accounting database; finished jobs stay visible for ten minutes, since Toil asks for them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sinfo", "squeue", "scancel", "sbatch", "munged")
NODES = ("n1", "n2", "n3")
_CONFIG = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/ctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldPort=16817
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
SlurmdTimeout=20
MinJobAge=600
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
DefMemPerCPU=256
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17003] CPUs=1 RealMemory=16000
PartitionName=main Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Return why there can be no cluster on this machine; empty: there can be one."""
    if os.geteuid() != 0:
        return "the daemons of Slurm need root"
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Cluster:
    """Three nodes; `stop` ends what `start` started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.config)}
        self._munge: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for name in ("ctld", "log", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "jobcomp.txt").touch()
        host = os.uname().nodename.partition(".")[0]
        self.config.write_text(_CONFIG.format(host=host, folder=self.folder), "utf-8")
        self._start_munge()
        self._do("/usr/sbin/slurmctld", "-f", self.config)
        for node in NODES:
            self._do("/usr/sbin/slurmd", "-N", node, "-f", self.config)
        deadline = time.monotonic() + 60
        while self._do("sinfo", "-h", "-N", "-o", "%t").split() != ["idle"] * len(NODES):
            assert time.monotonic() < deadline, self._do("sinfo", "-N", "-l")
            time.sleep(0.5)

    def _start_munge(self) -> None:
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode == 0:
            return
        for name in ("/run/munge", "/var/log/munge"):
            Path(name).mkdir(parents=True, exist_ok=True)
            shutil.chown(name, "munge", "munge")
            Path(name).chmod(0o755)
        self._munge = subprocess.Popen(
            ["runuser", "-u", "munge", "--", "munged", "--foreground"],
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "munged does not answer"
            time.sleep(0.2)

    def _do(self, *words: object) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def running(self) -> list[tuple[str, str, str]]:
        """Return number, name and node of the jobs that run."""
        rows = self._do("squeue", "-h", "-t", "R", "-o", "%i|%j|%N").splitlines()
        return [(row.split("|")[0], row.split("|")[1], row.split("|")[2]) for row in rows]

    def finished(self) -> list[dict[str, str]]:
        """Return what Slurm wrote down of each job that ended."""
        lines = (self.folder / "jobcomp.txt").read_text("utf-8").splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]

    def cancel(self, job: str) -> None:
        self._do("scancel", job)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and its job steps, as a loss of power would."""
        name = self.folder / f"slurmd-{node}.pid"
        os.kill(int(name.read_text()), signal.SIGKILL)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            mine = f"SLURMD_NODENAME={node}".encode() in environment
            if mine and str(self.config).encode() in environment:
                os.kill(int(folder.name), signal.SIGKILL)

    def stop(self) -> None:
        for name in (*(f"slurmd-{node}.pid" for node in NODES), "ctld.pid"):
            path = self.folder / name
            if path.is_file():
                try:
                    os.kill(int(path.read_text()), signal.SIGTERM)
                except ProcessLookupError:
                    continue
        if self._munge is not None:
            self._munge.terminate()
            self._munge.wait(20)
