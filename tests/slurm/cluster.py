"""A real SLURM on this host, for tests: munged, slurmctld and several slurmd below one folder, no accounting.

Debian's slurm-wlm is built with MULTIPLE_SLURMD, so one host can be many nodes. Times that are minutes on a cluster are
seconds here (AuthInfo's cred_expire decides how long a requeued job waits).
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
HOW_TO_GET_IT = "SLURM is not installed; on Debian: apt-get install slurm-wlm munge"
PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
NODES = 3

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
{controller}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MaxArraySize={max_array}
KillWait=2
SlurmdTimeout=10
SlurmctldTimeout=10
MinJobAge=10
ReturnToService=1
MailProg=/bin/true
CompleteWait=0
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=10 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""


def is_installed() -> bool:
    """Whether everything a cluster needs is on this machine."""
    return all(shutil.which(name, path=PATH) for name in NEEDED)


class Cluster:
    """A running cluster. Every command of it needs `environment`."""

    def __init__(self, folder: Path, max_array: int, controller: str, cpus: int) -> None:
        self.folder = folder
        self.environment: Mapping[str, str] = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        host, ports = socket.gethostname(), _free_ports(NODES + 1)
        nodes = "\n".join(
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[i]} "
            f"CPUs={cpus} RealMemory=4000 Feature=fast State=UNKNOWN"
            for i in range(1, NODES + 1)
        )
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        text = CONFIG.format(
            host=host, ports=ports, user=user, folder=folder, max_array=max_array,
            controller=f"SlurmctldParameters={controller}" if controller else "", nodes=nodes,
        )  # fmt: skip
        (folder / "slurm.conf").write_text(text)

    def start(self) -> None:
        """Start every daemon; returns when all nodes are idle. Raises RuntimeError with the logs' ends otherwise."""
        munge = self.folder / "munge"
        munge.mkdir(mode=0o755)
        (self.folder / "state").mkdir()
        key = munge / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "seed", "log")]
        self._spawn("munged", ["munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files])
        self._wait(lambda: (munge / "socket").exists(), "munged")
        self.start_controller()
        for number in range(1, NODES + 1):
            self.start_node(f"n{number}")
        idle = ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%T"]
        self._wait(lambda: self.run(*idle).split() == ["idle"] * NODES, "slurmd")

    def start_controller(self) -> None:
        """(Re)start slurmctld."""
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.folder / "slurm.conf")])

    def start_node(self, name: str) -> None:
        """(Re)start the slurmd of a node."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._spawn(name, ["slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf")])

    def kill(self, name: str) -> None:
        """Kill a daemon: "slurmctld" or a node. The steps on a node live on, as their own processes."""
        process = self.daemons.pop(name)
        process.kill()
        process.wait()

    def run(self, *command: str) -> str:
        """What a SLURM command prints; empty where it fails."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout if done.returncode == 0 else ""

    def queue(self) -> dict[str, str]:
        """State by job id of all that SLURM holds as pending or running."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def stop(self) -> None:
        """End every job and daemon of this cluster."""
        if jobs := list(self.queue()):
            self.run("scancel", *jobs)
            self.run("scancel", "--signal=KILL", "--full", *jobs)
        with contextlib.suppress(RuntimeError):
            self._wait(lambda: not self.queue(), "scancel", seconds=20)
        for process in self.daemons.values():
            process.send_signal(signal.SIGTERM)
        for process in self.daemons.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.daemons[name] = subprocess.Popen(
                command, env={**os.environ, **self.environment}, stdout=out, stderr=out, start_new_session=True
            )

    def _wait(self, condition: "object", what: str, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if condition():  # type: ignore[operator]
                return
            time.sleep(0.1)
        logs = [*self.folder.glob("*.log"), *self.folder.glob("*.out"), *self.folder.glob("munge/log")]
        ends = "\n".join(f"{path.name}:\n{path.read_text(errors='replace')[-1500:]}" for path in logs)
        raise RuntimeError(f"waited {seconds:.0f} s for {what}\n{ends}")


@contextmanager
def cluster(max_array: int = 1001, controller: str = "preempt_send_user_signal", cpus: int = 1) -> Iterator[Cluster]:
    """A cluster that is gone afterwards, its folder too. cpus: of a node, whatever the host has."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)  # munge wants its socket reachable
    made = Cluster(folder, max_array, controller, cpus)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
