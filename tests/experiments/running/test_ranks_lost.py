"""One of the ranks fails: every other ends within the limit, with a message that names it."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import rank_faults
from rank_faults import LIMIT, Fault, come_late, ends, hang, kill, misuse, run_out_of_memory, stop

from experiments.running.distributed import roll_call
from experiments.running.distributed.rendezvous import FIRST_PORT, PORTS, RanksMissing, Seat, gather, seat_of, store_of
from experiments.running.distributed.roll_call import Said

SILENT = f"did not answer for {LIMIT.total_seconds():g} s: hung, or killed with its node"


@pytest.mark.parametrize(
    ("at", "fault", "said"),
    [
        (1, kill, f"RankLost: rank 1 {SILENT}"),
        (1, hang, f"RankLost: rank 1 {SILENT}"),
        (0, kill, "RankLost: rank 0 has ended, or answers no more, without a word"),
        (0, hang, "RankLost: rank 0 has ended, or answers no more, without a word"),
        (2, run_out_of_memory, "RankLost: rank 2 failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 20"),
        (0, run_out_of_memory, "RankLost: rank 0 failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 20"),
        (1, misuse, "RankLost: rank 1 failed: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (1, stop, "Stopped: stopped by SIGTERM on rank 1"),
        (1, come_late, "RankLost: rank 1 failed: RuntimeError: "),
    ],
)
def test_every_other_rank_says_who_failed_and_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, fault: Fault, said: str
) -> None:
    monkeypatch.setattr(roll_call, "FAREWELL_SECONDS", 1.0)
    found = ends(tmp_path, 3, at, fault)
    others = {rank: words for rank, words in found.items() if rank != at}
    assert len(others) == 2 and all(words.startswith(said) for words in others.values()), found


@pytest.mark.parametrize(
    "late",
    [
        "RuntimeError: [unbound_buffer.cc:129] Timed out waiting 2000ms for send operation to complete",
        "DistBackendError: WorkNCCL(SeqNum=7, Timeout(ms)=2000) ran for 2001 milliseconds before timing out.",
    ],
)
def test_after_a_time_limit_the_last_to_speak_is_the_one_that_others_waited_for(late: str) -> None:
    heard = [Said(rank, order, late, in_collective=True, stopped=False) for rank, order in ((0, 1), (1, 3), (2, 2))]
    assert roll_call._of(heard) == f"rank 1 failed: {late}"
    closed = [Said(each.rank, each.order, "RuntimeError: Connection closed by peer", True, False) for each in heard]
    assert roll_call._of(closed) == "rank 0 failed: RuntimeError: Connection closed by peer"


def test_ranks_that_do_their_work_end_without_a_word(tmp_path: Path) -> None:
    assert ends(tmp_path, 3, -1, kill) == {0: "done", 1: "done", 2: "done"}


def test_ranks_that_do_not_come_are_named() -> None:
    limit = timedelta(seconds=0.2)
    seat = Seat(0, 4, 0, rank_faults.HERE, 0)
    store = store_of(seat, limit)
    store.set("here/2", "")
    with pytest.raises(RanksMissing, match=r"ranks 1 and 3 of 4 did not come to 127.0.0.1:\d+ within 0.2 s"):
        gather(store, seat, limit)


def test_a_rank_that_cannot_reach_the_first_says_where_it_looked() -> None:
    with pytest.raises(RanksMissing, match=r"rank 1: rank 0 cannot be reached at 127.0.0.1:9 within 0.2 s"):
        store_of(Seat(1, 2, 1, "127.0.0.1", 9), timedelta(seconds=0.2))


def test_a_process_is_told_its_rank_by_torchrun_or_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    seat = Seat(3, 4, 1, "node7", 29500)
    assert seat_of(seat.variables()) == seat
    assert seat_of({}) is None
    with pytest.raises(ValueError, match="RANK is 3, but WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set"):
        seat_of({"RANK": "3"})
    job = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "70001",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
    }
    for name, value in {**job, "SLURM_JOB_NODELIST": "gpu[07-08]"}.items():
        monkeypatch.setenv(name, value)
    assert seat_of(os.environ) == Seat(3, 4, 1, "gpu07", FIRST_PORT + 70001 % PORTS)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu07")  # a name that only SLURM may know
    assert seat_of(os.environ) == Seat(3, 4, 1, "localhost", FIRST_PORT + 70001 % PORTS)
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert seat_of(os.environ) is None  # a job of one task does its run alone
