"""What comes back: an archive of results without weights, and the smallest exported files, each small enough."""

from __future__ import annotations

import tarfile
from pathlib import Path

RESULTS = "results.tar.gz"
#: what is kept of a run
KEPT = ("result.json", "history.jsonl", "report.md", "config.yaml", "latency.json")
#: bytes that an archive of a model may have, and how many there may be
LIMIT, MODELS = 14 * 2**20, 3


def pack_results(work: Path, out: Path) -> None:
    """Write the results of all runs, those of an earlier occasion among them, and their logs."""
    with tarfile.open(out / RESULTS, "w:gz") as archive:
        for place in (work / "earlier", work):
            for path in sorted((place / "tables").glob("*/*")):
                made_again = place != work and (work / "tables" / path.parent.name / "result.json").exists()
                if path.name in KEPT and not made_again:
                    archive.add(path, path.relative_to(place))
        for path in sorted((work / "logs").glob("*.txt")):
            archive.add(path, path.relative_to(work))


def pack_models(work: Path, out: Path) -> None:
    """Write the deployment folders of the smallest files, those that lost most first, as archives of their own."""
    files = sorted((work / "tables").glob("*/deployment/model.onnx"), key=lambda path: path.stat().st_size)
    number = 0
    for path in files:
        if number == MODELS or path.stat().st_size > 2 * LIMIT:
            return
        archive = out / f"model_{number + 1}.tar.gz"
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(path.parent, path.parent.parent.name)
        if archive.stat().st_size > LIMIT:
            archive.unlink()
        else:
            number += 1


def unpack_earlier(done: Path, work: Path) -> None:
    """Unpack the results of an earlier occasion into ``work/earlier``."""
    if (done / RESULTS).exists():
        with tarfile.open(done / RESULTS) as archive:
            archive.extractall(work / "earlier", filter="data")
