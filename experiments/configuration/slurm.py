"""What sbatch is asked for. Nothing of it changes a result, so nothing of it enters a run's hash."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """Settings of `--launcher slurm`, under sbatch's own names; none leaves it to the cluster."""

    partition: str | None = None  # --partition: the queue
    account: str | None = None  # --account: who pays
    qos: str | None = None  # --qos: quality of service
    gres: str | None = None  # --gres: gpu:1
    gpus_per_task: int | None = None  # --gpus-per-task: where several ranks train a run, one to each of them
    constraint: str | None = None  # --constraint: features a node must have
    exclude: str | None = None  # --exclude: nodes that are not used
    time: int = 24 * 60  # minutes of one job; a run that needs longer is requeued and goes on
    mem_gb: float | None = None  # --mem, in GiB
    cpus_per_task: int | None = None  # none: as many as a run has threads
    signal_seconds: int = 120  # between the warning and the end of a job: one step and one checkpoint
    attempts: int = 5  # of a job, in a row, that save no further step; then its run has failed and is not requeued
    array_parallelism: int = 256  # tasks of an array at once
    srun_args: tuple[str, ...] = ()  # further arguments of srun: --cpu-bind=none
    setup: tuple[str, ...] = ()  # shell lines before Python: module load cuda

    def __post_init__(self) -> None:
        for name in ("time", "signal_seconds", "attempts", "array_parallelism"):
            if getattr(self, name) < 1:
                raise ValueError(f"slurm.{name} must be at least 1, got {getattr(self, name)}")
        if self.signal_seconds >= 60 * self.time:
            raise ValueError(
                f"slurm.signal_seconds is {self.signal_seconds}, which leaves nothing of slurm.time, {self.time} min"
            )
        if self.gres is not None and self.gpus_per_task is not None:
            raise ValueError(
                f"slurm.gres is {self.gres!r} and slurm.gpus_per_task {self.gpus_per_task}; both ask for GPUs, keep one"
            )
        for name in ("mem_gb", "cpus_per_task", "gpus_per_task"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"slurm.{name} must be positive, or none, got {value}")
