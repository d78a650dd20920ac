"""Find the latency tables of a run: in its directory, in a file that the user names, in the cache, or by measuring."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from sparse_xp.console import say
from sparse_xp.cpu import this_cpu
from sparse_xp.deployment.engines import choose_engines, engine_versions
from sparse_xp.deployment.latency_measurement import measure_tables
from sparse_xp.deployment.latency_table import (
    LatencySpec,
    LatencyTable,
    names_table_file,
    parse_specs,
    read_latency_tables,
    write_latency_tables,
)
from sparse_xp.errors import UserError
from sparse_xp.files.ownership import free_name
from sparse_xp.functional.cost_model import LayerShape

#: the file with the tables of a run, in its directory
TABLES = "latency.json"


def tables_of_run(directory: Path, latency: str, shape: LayerShape, cache: Path) -> list[LatencyTable]:
    """Return the tables of the run in ``directory``: those it began with, even if it continues on another CPU.

    Raises UserError as ``find_tables`` does.
    """
    if not (directory / TABLES).is_file():
        tables = find_tables(latency, shape, cache)
        directory.mkdir(parents=True, exist_ok=True)
        write_latency_tables(tables, directory / TABLES)
    return read_latency_tables(directory / TABLES)


def find_tables(latency: str, shape: LayerShape, cache: Path) -> list[LatencyTable]:
    """Return the tables that ``latency`` names: a file's, or those in ``cache``, where missing ones are added now.

    Raises UserError for a file with a table of another shape.
    """
    if names_table_file(latency):
        return read_table_file(Path(latency), shape)
    specs = parse_specs(latency)
    choose_engines([specs[0].engine])
    paths = {spec: cache / cache_name(spec, shape) for spec in specs}
    missing = [spec for spec, path in paths.items() if not is_readable(path)]
    begin = time.perf_counter()
    # Measured together, in turn, so that fp32 and int8 meet the same load of the machine.
    for table in measure_tables(missing, shape) if missing else ():
        paths[table.spec].parent.mkdir(parents=True, exist_ok=True)
        write_latency_tables([table], paths[table.spec])
    for spec, path in paths.items():
        how = f"measured in {time.perf_counter() - begin:.0f} s" if spec in missing else "measured before"
        say(f"latency: {path}, {how}")
    return [read_latency_tables(path)[0] for path in paths.values()]


def read_table_file(path: Path, shape: LayerShape) -> list[LatencyTable]:
    """Return the tables of a file that the user names. Raises UserError for tables of another shape."""
    tables = read_latency_tables(path)
    for table in tables:
        if table.shape != shape:
            raise UserError(f"{path} is of layers of another shape: {table.shape}, and the model has {shape}.")
    if tables[0].machine != str(this_cpu()):
        say(f"latency: {path} was measured on {tables[0].machine}; that is where the speed-up holds")
    return tables


def is_readable(path: Path) -> bool:
    """Return whether the cache has this table. A damaged file is moved aside, with a message."""
    if not os.path.lexists(path):
        return False
    try:
        read_latency_tables(path)
        return True
    except UserError as error:
        moved = free_name(path, "damaged")
        os.rename(path, moved)
        say(f"{error} It is measured again, and what was there is in {moved}.")
        return False


def cache_name(spec: LatencySpec, shape: LayerShape) -> str:
    """Return the file name of a table: what was measured, with which version of the engine, on which CPU."""
    version = engine_versions([spec.engine])[spec.engine]
    sizes = f"{shape.hidden}-{shape.heads}x{shape.head_size}-{shape.neurons}"
    cpu = f"{this_cpu().kind}-{hashlib.sha256(str(this_cpu()).encode()).hexdigest()[:8]}"
    return f"{spec.engine}-{version}-{spec.precision}-{spec.rows}x{spec.tokens}-{sizes}-{cpu}.json"
