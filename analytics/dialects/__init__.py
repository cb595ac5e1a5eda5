"""The lake's SQL for other engines: Apache Spark and ClickHouse, from the one set of texts in analytics/sql/."""
