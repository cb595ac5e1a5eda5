-- The rows of any table of the lake whose `ts` lies in the range.
CREATE OR REPLACE MACRO table_between(name, since, until) AS TABLE
SELECT * FROM query_table(name)
WHERE (since IS NULL OR ts >= since::TIMESTAMP) AND (until IS NULL OR ts < until::TIMESTAMP)
  AND _from(date, hour, since) AND _to(date, hour, until);
