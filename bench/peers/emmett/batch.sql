SELECT success FROM emt_append_to_stream(
    ARRAY(SELECT gen_random_uuid()::text FROM unnest($3)), $3, array_fill('{}'::jsonb, ARRAY[cardinality($3)]),
    array_fill('1'::text, ARRAY[cardinality($3)]), $2, array_fill('E'::text, ARRAY[cardinality($3)]), $1, 'order', NULL, 'emt:default')
