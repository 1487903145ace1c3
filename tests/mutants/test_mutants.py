"""The list of broken properties cannot rot: each still breaks one place of today's code. `make mutate` tries them."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from objectives.registry import available
from tests.mutants.__main__ import judge
from tests.mutants.catalogue import FILE, ROOT, Mutant, load

MUTANTS = load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.row}-{mutant.breaks}".replace(" ", "_"))
def test_each_breaks_one_place_of_todays_code(mutant: Mutant) -> None:
    broken = mutant.broken((ROOT / mutant.file).read_text(encoding="utf-8"))
    assert broken != (ROOT / mutant.file).read_text(encoding="utf-8")
    ast.parse(broken)
    assert mutant.tests and all((ROOT / test).is_file() for test in mutant.tests)


def test_every_row_of_table_1_is_broken_in_several_ways_and_nothing_twice() -> None:
    rows = Counter(mutant.row for mutant in MUTANTS)
    assert all(rows[name] >= 5 for name in (*available(), "random"))
    twice = [change for change, times in Counter((m.file, m.old, m.new) for m in MUTANTS).items() if times > 1]
    assert not twice


def test_a_text_that_is_gone_or_stands_twice_is_refused() -> None:
    def mutant(old: str) -> Mutant:
        return Mutant(row="clip", breaks="a thing", file="x.py", old=old, new="y", tests=("t.py",))

    for old, times in (("gone", "0 times"), ("a", "2 times")):
        with pytest.raises(ValueError, match=f"'a thing'.*{times} in x.py"):
            mutant(old).broken("a = a")
    assert mutant("a =").broken("a = a") == "y a"


def test_a_mutant_without_tests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mutants.toml"
    path.write_text(FILE.read_text(encoding="utf-8").replace('row = "clip"', 'row = "clap"', 1), encoding="utf-8")
    with pytest.raises(ValueError, match="'clap' has no tests"):
        load(path)


def test_what_survives_is_wrong_unless_a_reason_is_stated_and_nothing_notices() -> None:
    plain = {"row": "clip", "breaks": "", "file": "", "old": "", "new": "", "tests": ()}
    must_die, may_live = Mutant(**plain), Mutant(**plain, equivalent="padding is never read")
    assert judge(must_die, "tests/a.py::test_b") == ("killed by a.py::test_b", True)
    assert judge(must_die, "") == ("SURVIVED", False)
    assert judge(may_live, "") == ("equivalent: padding is never read", True)
    assert judge(may_live, "tests/a.py::test_b") == ("NOT EQUIVALENT, noticed by tests/a.py::test_b", False)
    assert judge(must_die, "tests/a.py::test_b by NameError, so it is no mutant")[1] is False


@pytest.mark.slow
def test_the_command_breaks_a_copy_and_names_the_test_that_noticed() -> None:
    before = {mutant.file: (ROOT / mutant.file).read_bytes() for mutant in MUTANTS}
    command = [sys.executable, "-m", "tests.mutants", "--only", "supervised"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed by objectives/test_supervised.py::test_unknown_class_is_named" in done.stdout
    assert "equivalent: an equal bias on every class changes no softmax" in done.stdout
    assert before == {mutant.file: (ROOT / mutant.file).read_bytes() for mutant in MUTANTS}
