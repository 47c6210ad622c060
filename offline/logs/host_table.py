"""One table of a host: the files it lies in, and the SQL that reads them with columns of the declared types."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import duckdb
import fsspec

from serendipity.offline.logs import ubi
from serendipity.offline.logs.errors import LogsError
from serendipity.offline.logs.kinds import ID, is_text
from serendipity.offline.logs.schema import TABLES, Column, LogsConfig, TableName
from serendipity.offline.parquet import sql_text

_READERS = {
    ".parquet": "read_parquet({files}, file_row_number = true, {shared})",
    ".csv": "read_csv({files}, all_varchar = true, header = true, {shared})",
    ".tsv": "read_csv({files}, all_varchar = true, header = true, delim = '\t', {shared})",
    ".json": "read_json({files}, sample_size = -1, {shared})",
}
_READERS |= {".jsonl": _READERS[".json"], ".ndjson": _READERS[".json"]}
_COMPRESSED = (".gz", ".zst")
_OURS = ("host_file", "file_row_number", "host_row")
_COUNTED = "row_number() OVER () - 1"
"""Position of a row, in SQL, where the files do not tell it."""


class _Source(NamedTuple):
    """Files of a table: shown, in errors; sql: to select from; row: the SQL of a row's position; types: by column."""

    shown: str
    sql: str
    row: str
    types: dict[str, str]


class Host:
    """A host's tables, below a folder or a URL.

    root: a folder, or what fsspec takes (s3://bucket/logs). config: where tables lie and what their columns are called.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, root: str, config: LogsConfig) -> None:
        self._connection = connection
        self._root = root
        self._config = config
        connection.execute(f"SET TimeZone = {sql_text(config.time_zone)}")

    def table(self, name: TableName) -> HostTable | None:
        """Open a table; None where there is none.

        Raises LogsError when its files cannot be read, or lack a column, or have one of another type.
        """
        source = self._ubi_events() if name == "events" and self._config.format == "ubi" else self._read(name)
        return HostTable(name, *source) if source else None

    def _ubi_events(self) -> _Source | None:
        events, queries = self._read("events", ubi.event_columns), self._read("queries", ubi.query_columns)
        if events is None:
            return None
        sql = ubi.joined(events.sql, queries.sql if queries else None)
        return _Source(events.shown, sql, "host_row", self._types(sql, events.shown))

    def _read(
        self, name: TableName, columns_of: Callable[[Mapping[str, str]], dict[str, str]] | None = None
    ) -> _Source | None:
        """Find a table's files and what selects from them. columns_of: what columns are made of unless configured."""
        files = host_files(self._root, name, self._config)
        if not files:
            return None
        # DuckDB sees by itself where folders are partitions. Every column of users is an attribute, and the day of an
        # export is none.
        partitions = ", hive_partitioning = false" if name == "users" else ""
        source, shown = self._source(files, partitions)
        raw = self._types(source, shown)
        row = "file_row_number" if "file_row_number" in source else _COUNTED
        configured = self._config.columns.get(name, {})
        for column, expression in configured.items():
            self._check_mapping(name, column, expression, source, shown)
        mapped = {**(columns_of(raw) if columns_of else {}), **configured}
        if not mapped:
            return _Source(shown, source, row, raw)
        # A column that has been given another name is no attribute of its own.
        left = [column for column in raw if column not in (*mapped, *mapped.values())]
        kept = ", ".join(map(identifier, (*left, *(own for own in _OURS if own in source))))
        given = ", ".join(f"({expression}) AS {identifier(column)}" for column, expression in mapped.items())
        source = f"(SELECT {given}, {kept} FROM {source})" if kept else f"(SELECT {given} FROM {source})"
        return _Source(shown, source, row, self._types(source, shown))

    def require(self, name: TableName) -> HostTable:
        """Open a table that must be there; raises LogsError as `table` does, and where it is missing."""
        found = self.table(name)
        if found is None:
            called = default_name(name, self._config)
            where = self._config.files.get(name, called)
            raise LogsError(
                f"{self._root.rstrip('/')}/{where}: missing; expected a file {called}.parquet (.csv, .jsonl), or a "
                f"folder {called}/ of such files"
            )
        return found

    def _source(self, files: list[str], partitions: str) -> tuple[str, str]:
        endings = {_ending(file) for file in files}
        shown = files[0] if len(files) == 1 else str(PurePosixPath(files[0]).parent)
        if len(endings) > 1:
            raise LogsError(f"{shown}: found files of {', '.join(sorted(endings))}, expected one format")
        protocol = files[0].partition("://")[0] if "://" in files[0] else ""
        if protocol and not self._connection.filesystem_is_registered(protocol):
            self._connection.register_filesystem(fsspec.filesystem(protocol))
        listed = "[" + ", ".join(map(sql_text, files)) + "]"
        shared = f"union_by_name = true, filename = 'host_file'{partitions}"
        return _READERS[endings.pop()].format(files=listed, shared=shared), shown

    def _types(self, source: str, shown: str) -> dict[str, str]:
        try:
            described = self._connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        except duckdb.Error as error:
            raise LogsError(f"{shown}: cannot be read ({one_line(error)})") from error
        return {str(name): str(kind) for name, kind, *_ in described if name not in _OURS}

    def _check_mapping(self, table: str, column: str, expression: str, source: str, shown: str) -> None:
        try:
            self._connection.execute(f"DESCRIBE SELECT ({expression}) FROM {source}")
        except duckdb.Error as error:
            raise LogsError(
                f"logs.columns.{table}.{column}: {expression!r} cannot be had of {shown} ({one_line(error)})"
            ) from error


@dataclass(frozen=True)
class HostTable:
    """An open table. shown: its file or folder, for errors; source: the SQL to select from; row: the SQL of a row's
    position; types: column → found type.

    Raises LogsError on being made for a column that is missing or of another type.
    """

    name: TableName
    shown: str
    source: str
    row: str
    types: dict[str, str]

    def __post_init__(self) -> None:
        for column in TABLES[self.name]:
            found = self._found(column)
            if found is None and column.missing is None:
                raise LogsError(
                    f"{self.shown}: column {column.name}: missing (found {', '.join(self.types)}); expected "
                    f"{column.kind.expected}, or logs.columns.{self.name}.{column.name} to say what gives it"
                )
            if found is not None and not column.kind.accepts(found):
                hint = f'; cast it: logs.columns.{self.name}.{column.name} = "{column.name}::BIGINT"'
                raise LogsError(
                    f"{self.shown}: column {column.name}: found {found}, expected {column.kind.expected}"
                    + (hint if column.kind is ID and found in ("DOUBLE", "FLOAT") else "")
                )

    @property
    def columns(self) -> str:
        """The SQL of the declared columns, each of its type, of source and source_row, and of `unreadable`.

        source_row: from 0, in the file of Parquet, in the whole table of other formats. unreadable: the first column
        whose text is not what it should be, NULL where there is none.
        """
        declared = [f"{self._typed(column)} AS {column.name}" for column in TABLES[self.name]]
        return ", ".join(
            (
                *declared,
                f"{self._unreadable()} AS unreadable",
                f"parse_filename(host_file) AS source, {self.row} AS source_row",
            )
        )

    @property
    def others(self) -> list[str]:
        """Names of the columns that the host schema does not name."""
        known = {column.name for column in TABLES[self.name]}
        return [name for name in self.types if name.lower() not in known]

    def _found(self, column: Column) -> str | None:
        return next((kind for name, kind in self.types.items() if name.lower() == column.name), None)

    def _typed(self, column: Column) -> str:
        found = self._found(column)
        return str(column.missing) if found is None else column.kind.typed(column.name, found)

    def _unreadable(self) -> str:
        cases = [
            f"WHEN {self._text(column)} IS NOT NULL AND {self._typed(column)} IS NULL THEN {sql_text(column.name)}"
            for column in TABLES[self.name]
            if is_text(self._found(column) or "") and column.kind.type != "VARCHAR"
        ]
        return f"CASE {' '.join(cases)} END" if cases else "NULL::VARCHAR"

    def _text(self, column: Column) -> str:
        return f"nullif(trim(({column.name})::VARCHAR), '')"


def host_files(root: str, table: TableName, config: LogsConfig) -> list[str]:
    """List the files a table lies in: one of its name, or all in a folder of its name, or what the configuration says.

    What a writer has not committed, or keeps beside the data (names that begin with _ or .), is no part of it. Raises
    LogsError for storage that cannot be reached.
    """
    with _told(root):
        return _host_files(root, table, config)


def _host_files(root: str, table: TableName, config: LogsConfig) -> list[str]:
    system, folder = fsspec.url_to_fs(root)
    given = config.files.get(table)
    name = default_name(table, config)
    if given is not None:
        if "://" in given:
            system, pattern = fsspec.url_to_fs(given)
        else:
            pattern = f"{folder}/{given}"
        found = system.glob(pattern)
        found = [file for path in found for file in (system.find(path) if system.isdir(path) else [path])]
    else:
        beside = system.ls(folder, detail=False) if system.isdir(folder) else []
        found = [path for path in beside if PurePosixPath(path).name.split(".")[0] == name and system.isfile(path)]
        if not found and system.isdir(f"{folder}/{name}"):
            found = system.find(f"{folder}/{name}")
    below = len(PurePosixPath(folder).parts)
    kept = [
        path
        for path in sorted(found)
        if _ending(path) in _READERS
        and not any(part.startswith(("_", ".")) for part in PurePosixPath(path).parts[below:])
    ]
    return [path if "file" in system.protocol else system.unstrip_protocol(path) for path in kept]


def default_name(table: TableName, config: LogsConfig) -> str:
    """Tell the name of a table's file or folder; UBI's are called like its indexes."""
    return f"ubi_{table}" if config.format == "ubi" and table in ("events", "queries") else table


def object_key(url: str) -> str:
    """Tell a version of an object from the next, by what its storage says of it. Raises LogsError."""
    with _told(url):
        system, path = fsspec.url_to_fs(url)
        return str(system.ukey(path))


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Name the storage in whatever fsspec says of it: a package that is missing, no access, kinds of a store's own."""
    try:
        yield
    except Exception as error:
        raise LogsError(f"{url}: {type(error).__name__}: {error}") from error


def identifier(name: str) -> str:
    """Quote a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def one_line(error: Exception) -> str:
    """What DuckDB says of an error, without the query it quotes."""
    return " ".join(str(error).partition("\n\nLINE ")[0].split())


def _ending(path: str) -> str:
    name = PurePosixPath(path)
    return PurePosixPath(name.stem).suffix if name.suffix in _COMPRESSED else name.suffix
