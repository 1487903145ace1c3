"""What is read of twenty documents of each format, hash by hash; made by tests/golden_documents.py, with a reason."""

import json
from pathlib import Path

import pytest
from golden_documents import FILE, WRITERS, golden

GOLDEN = json.loads(FILE.read_text())


@pytest.mark.parametrize("kind", WRITERS)
def test_documents_are_read_as_they_were(kind: str, tmp_path: Path) -> None:
    assert GOLDEN["why"]
    assert golden(kind, tmp_path / kind) == GOLDEN["read"][kind]
