-- Note beside a table of kept tiles what makes it tiles again.
-- slots: table, text (JSON)
-- rows: none
COMMENT ON TABLE {table} IS {text}
