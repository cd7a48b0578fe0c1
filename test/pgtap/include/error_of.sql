-- What a command raises: SQLSTATE, message, DETAIL, HINT, schema and table, a line
-- each where there is one.
CREATE FUNCTION pg_temp.error_of(command text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    message text; detail text; hint text; s text; t text;
BEGIN
    EXECUTE command;
    RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
        s = SCHEMA_NAME, t = TABLE_NAME;
    RETURN concat_ws(E'\n', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''), nullif(concat_ws('.', nullif(s, ''), nullif(t, '')), ''));
END $$;
