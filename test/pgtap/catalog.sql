-- The shape of the extension: signatures, volatility, comments, privileges, and
-- what a dump and pg_upgrade rely on.
SET client_min_messages = warning;
SELECT plan(161);

-- Every object of the extension.
CREATE TEMP TABLE members AS
    SELECT classid, objid, objsubid, (pg_identify_object(classid, objid, objsubid)).type, pg_describe_object(classid, objid, objsubid) AS name
      FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension
          WHERE extname = 'event_store');
SELECT is_empty($$ SELECT name FROM members WHERE obj_description(objid, classid::regclass::text::name) IS NULL AND shobj_description(objid, classid::regclass::text::name) IS NULL
                     AND NOT (classid = 'pg_type'::regclass AND EXISTS (SELECT 1 FROM pg_type t WHERE t.oid = objid AND (t.typtype = 'b' OR EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c')))) $$,
                'every object of the extension has a comment');
SELECT is_empty($$ SELECT tgrelid::regclass, tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'event_store'::regnamespace AND NOT tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL $$,
                'so has every trigger on its tables');
SELECT isnt(obj_description((SELECT oid FROM pg_extension WHERE extname = 'event_store'), 'pg_extension'), NULL, 'and the extension itself');
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'event_store'::regnamespace AND relkind IN ('r', 'v', 'S', 'c')
                     AND NOT EXISTS (SELECT 1 FROM members m WHERE m.objid = c.oid OR m.objid = c.reltype) $$,
                         'whatever is in the schema belongs to the extension');
SELECT is_empty($$ SELECT name FROM members WHERE classid = 'pg_class'::regclass AND (SELECT relnamespace FROM pg_class WHERE oid = objid) <> 'event_store'::regnamespace
                   UNION ALL SELECT name FROM members WHERE classid = 'pg_proc'::regclass AND (SELECT pronamespace FROM pg_proc WHERE oid = objid) <> 'event_store'::regnamespace $$,
                'the extension puts nothing into other schemas');

-- Functions: signature, result, volatility, parallel safety.  Names of parameters
-- are API, since drivers call by name.
CREATE TEMP TABLE functions (name text, arguments text, result text, volatility "char", parallel "char");
INSERT INTO functions VALUES
    ('append', 'event_table regclass, stream text, type text, data jsonb, expected_version bigint DEFAULT NULL::bigint, event_id uuid DEFAULT NULL::uuid, metadata jsonb DEFAULT NULL::jsonb, correlation_id text DEFAULT NULL::text, causation_id text DEFAULT NULL::text, occurred_at timestamp with time zone DEFAULT NULL::timestamp with time zone, schema_version integer DEFAULT 1', 'event_store.append_result', 'v', 'u'),
    ('append_batch', 'event_table regclass, stream text, types text[], data jsonb[], expected_version bigint DEFAULT NULL::bigint, event_ids uuid[] DEFAULT NULL::uuid[], metadata jsonb[] DEFAULT NULL::jsonb[], correlation_id text DEFAULT NULL::text, causation_id text DEFAULT NULL::text, occurred_at timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], schema_versions integer[] DEFAULT NULL::integer[]', 'event_store.append_result', 'v', 'u'),
    ('append_json', 'event_table regclass, stream text, events jsonb, expected_version bigint DEFAULT NULL::bigint',
        'event_store.append_result', 'v', 'u'),
    ('append_streams', 'event_table regclass, appends jsonb, checks jsonb DEFAULT NULL::jsonb, OUT stream text, OUT first_version bigint, OUT last_version bigint, OUT first_position bigint, OUT last_position bigint, OUT event_ids uuid[], OUT duplicate boolean', 'SETOF record', 'v', 'u'),
    ('category', 'stream text', 'text', 'i', 's'),
    ('channel', 'event_table regclass', 'text', 's', 's'),
    ('check_guards', 'target regclass', 'text', 's', 's'),
    ('create_aggregate', 'name text, reducer regprocedure DEFAULT ''event_store.merge(jsonb,event_store.event)''::regprocedure, initial jsonb DEFAULT ''{}''::jsonb, snapshot_every integer DEFAULT NULL::integer, schema_version integer DEFAULT 1, or_replace boolean DEFAULT false', 'void', 'v', 'u'),
    ('check_upcasters', 'event_table regclass, sample bigint DEFAULT NULL::bigint',
        'TABLE("position" bigint, event_id uuid, stream text, version bigint, type text, schema_version integer, sqlstate text, message text)', 'v', 'u'),
    ('create_event_table', 'name text, if_not_exists boolean DEFAULT false', 'regclass', 'v', 'u'),
    ('diff_state', 'event_table regclass, stream text, aggregate text, from_version bigint DEFAULT 0, to_version bigint DEFAULT NULL::bigint', 'TABLE(path text[], before jsonb, after jsonb)', 's', 'u'),
    ('drop_aggregate', 'name text', 'void', 'v', 'u'),
    ('drop_event_table', 'event_table regclass, cascade boolean DEFAULT false', 'void', 'v', 'u'),
    ('event_catalog', 'event_table regclass', 'TABLE(type text, registered boolean, description text, owner_team text, example jsonb, events bigint, streams bigint, first_recorded_at timestamp with time zone, last_recorded_at timestamp with time zone, bytes bigint, schema_versions integer[], upcast_to integer)', 's', 'u'),
    ('feed_status', 'event_table regclass, OUT mark bigint, OUT checkpoint bigint, OUT last_position bigint, OUT events_behind bigint, OUT seconds_behind double precision, OUT notifications bigint, OUT last_notified_at timestamp with time zone, OUT worker_pid integer', 'record', 'v', 'u'),
    ('fold', 'event event_store.event, aggregate text', 'jsonb', 'i', 'u'),
    ('guard', 'event_table regclass', 'SETOF text', 'v', 'u'),
    ('high_water_mark', 'event_table regclass', 'bigint', 'v', 'u'),
    ('last_event', 'event_table regclass, stream text, type text DEFAULT NULL::text, raw boolean DEFAULT false', 'SETOF event_store.event', 's', 'u'),
    ('last_position', 'event_table regclass', 'bigint', 's', 's'),
    ('load', 'event_table regclass, stream text, aggregate text, at_version bigint DEFAULT NULL::bigint, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, occurred_as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, use_snapshot boolean DEFAULT true, OUT version bigint, OUT state jsonb, OUT events_folded bigint, OUT snapshot_version bigint', 'record', 's', 'u'),
    ('load_category', 'event_table regclass, category text, aggregate text, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, occurred_as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, use_snapshot boolean DEFAULT true, OUT stream text, OUT version bigint, OUT state jsonb, OUT events_folded bigint, OUT snapshot_version bigint', 'SETOF record', 's', 'u'),
    ('load_snapshot', 'event_table regclass, stream text, aggregate text DEFAULT ''''::text, max_version bigint DEFAULT NULL::bigint, schema_version integer DEFAULT 1, OUT version bigint, OUT state jsonb, OUT saved_at timestamp with time zone', 'SETOF record', 's', 'u'),
    ('make_append_only', 'target regclass', 'void', 'v', 'u'),
    ('merge', 'state jsonb, event event_store.event', 'jsonb', 'i', 's'),
    ('position_at', 'event_table regclass, at timestamp with time zone', 'bigint', 's', 's'),
    ('prune_snapshots', 'event_table regclass, keep integer DEFAULT 1, aggregate text DEFAULT NULL::text', 'bigint', 'v', 'u'),
    ('read_all', 'event_table regclass, after bigint DEFAULT NULL::bigint, max_count bigint DEFAULT 1000, before bigint DEFAULT NULL::bigint, direction text DEFAULT ''forward''::text, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[], streams text[] DEFAULT NULL::text[], correlation_id text DEFAULT NULL::text, after_event_id uuid DEFAULT NULL::uuid, raw boolean DEFAULT false', 'SETOF event_store.event', 'v', 'u'),
    ('read_batch', 'event_table regclass, after bigint DEFAULT NULL::bigint, max_count bigint DEFAULT 1000, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[], streams text[] DEFAULT NULL::text[], correlation_id text DEFAULT NULL::text, after_event_id uuid DEFAULT NULL::uuid, raw boolean DEFAULT false, OUT checkpoint bigint, OUT checkpoint_event_id uuid, OUT events jsonb', 'record', 'v', 'u'),
    ('read_category', 'event_table regclass, category text, after bigint DEFAULT NULL::bigint, max_count bigint DEFAULT 1000, before bigint DEFAULT NULL::bigint, direction text DEFAULT ''forward''::text, types text[] DEFAULT NULL::text[], correlation_id text DEFAULT NULL::text, after_event_id uuid DEFAULT NULL::uuid, raw boolean DEFAULT false', 'SETOF event_store.event', 'v', 'u'),
    ('read_event', 'event_table regclass, event_id uuid, raw boolean DEFAULT false', 'SETOF event_store.event', 's', 'u'),
    ('read_stream', 'event_table regclass, stream text, from_version bigint DEFAULT NULL::bigint, max_count bigint DEFAULT NULL::bigint, direction text DEFAULT ''forward''::text, as_of timestamp with time zone DEFAULT NULL::timestamp with time zone, raw boolean DEFAULT false', 'SETOF event_store.event', 's', 'u'),
    ('read_stream_from_snapshot', 'event_table regclass, stream text, aggregate text, schema_version integer DEFAULT 1, OUT snapshot_version bigint, OUT state jsonb, OUT version bigint, OUT events jsonb', 'record', 's', 'u'),
    ('alter_projection', 'name text, statement text DEFAULT NULL::text, function regprocedure DEFAULT NULL::regprocedure, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[], mode text DEFAULT NULL::text, partitions integer DEFAULT NULL::integer, search_path text DEFAULT NULL::text, tables regclass[] DEFAULT NULL::regclass[], on_error text DEFAULT NULL::text, max_attempts integer DEFAULT NULL::integer, retry_delay interval DEFAULT NULL::interval, batch_size integer DEFAULT NULL::integer, batch_time interval DEFAULT NULL::interval, owner regrole DEFAULT NULL::regrole', 'void', 'v', 'u'),
    ('cancel_rebuild', 'name text', 'void', 'v', 'u'),
    ('check_projection', 'name text, against_live boolean DEFAULT false', 'TABLE("table" regclass, rows bigint, digest text, same boolean, difference jsonb)', 'v', 'u'),
    ('create_projection', 'name text, event_table regclass, statement text DEFAULT NULL::text, function regprocedure DEFAULT NULL::regprocedure, types text[] DEFAULT NULL::text[], categories text[] DEFAULT NULL::text[], mode text DEFAULT ''async''::text, partitions integer DEFAULT 1, search_path text DEFAULT NULL::text, tables regclass[] DEFAULT NULL::regclass[], on_error text DEFAULT ''stop''::text, max_attempts integer DEFAULT 5, retry_delay interval DEFAULT ''00:00:00.2''::interval, batch_size integer DEFAULT 100000, batch_time interval DEFAULT ''00:00:00.1''::interval, start_after bigint DEFAULT 0', 'void', 'v', 'u'),
    ('drop_parked', 'name text, position bigint DEFAULT NULL::bigint', 'bigint', 'v', 'u'),
    ('drop_projection', 'name text', 'void', 'v', 'u'),
    ('dry_run_projection', 'name text, after bigint DEFAULT NULL::bigint, max_count bigint DEFAULT NULL::bigint, OUT events bigint, OUT batches bigint, OUT failed bigint, OUT duration interval, OUT errors jsonb', 'record', 'v', 'u'),
    ('pause_projection', 'name text', 'void', 'v', 'u'),
    ('rebuild_projection', 'name text, shadow_schema text DEFAULT NULL::text', 'void', 'v', 'u'),
    ('reset_projection', 'name text, position bigint DEFAULT 0', 'void', 'v', 'u'),
    ('resume_projection', 'name text', 'void', 'v', 'u'),
    ('retry_parked', 'name text, position bigint DEFAULT NULL::bigint', 'bigint', 'v', 'u'),
    ('run_projection', 'name text, max_batches bigint DEFAULT NULL::bigint, OUT events bigint, OUT batches bigint, OUT parked bigint, OUT position bigint', 'record', 'v', 'u'),
    ('wait_for_projection', 'name text, position bigint DEFAULT NULL::bigint, timeout interval DEFAULT ''00:00:10''::interval', 'boolean', 'v', 'u'),
    ('register_event_type', 'event_table regclass, type text, description text DEFAULT NULL::text, owner_team text DEFAULT NULL::text, example jsonb DEFAULT NULL::jsonb', 'void', 'v', 'u'),
    ('register_upcaster', 'event_table regclass, type text, from_version integer, function regprocedure', 'void', 'v', 'u'),
    ('save_snapshot', 'event_table regclass, stream text, version bigint, state jsonb, aggregate text DEFAULT ''''::text, schema_version integer DEFAULT 1', 'void', 'v', 'u'),
    ('stream_exists', '', 'bigint', 'i', 's'),
    ('stream_version', 'event_table regclass, stream text', 'bigint', 's', 's'),
    ('streams', 'event_table regclass, category text DEFAULT NULL::text',
        'TABLE(stream text, version bigint, last_position bigint, last_recorded_at timestamp with time zone)', 's', 's'),
    ('take_snapshots', 'event_table regclass, aggregate text, category text DEFAULT NULL::text, max_count bigint DEFAULT NULL::bigint', 'bigint', 'v', 'u'),
    ('verify_snapshots', 'event_table regclass, aggregate text, OUT stream text, OUT version bigint, OUT stored jsonb, OUT folded jsonb', 'SETOF record', 's', 'u'),
    ('unregister_event_type', 'event_table regclass, type text', 'boolean', 'v', 'u'),
    ('unregister_upcaster', 'event_table regclass, type text, from_version integer', 'boolean', 'v', 'u'),
    ('wait_for_events', 'event_table regclass, after bigint DEFAULT NULL::bigint, timeout interval DEFAULT ''00:00:30''::interval', 'bigint', 'v', 'u');
SELECT is((SELECT array_agg(regexp_replace(pg_get_function_arguments(oid), '"(\w+)"', '\1', 'g') || ' -> ' || pg_get_function_result(oid))
    FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND proname = name),
          ARRAY[arguments || ' -> ' || result], name || '(): one function, its parameters and result') FROM functions;
SELECT is((SELECT array_agg(concat(provolatile, ' ', proparallel)) FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace
    AND proname = name), ARRAY[concat(volatility, ' ', parallel)],
          name || '(): volatility and parallel safety') FROM functions;
SELECT set_eq($$ SELECT proname::text FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND proname !~ '^_' $$,
    'SELECT name FROM functions', 'there are no other public functions');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND prorettype IN ('event_store.event'::regtype) AND proretset
                     AND proname ~ '^read_(all|category)' AND (provolatile <> 'v' OR proparallel <> 'u') $$,
                         'feeds are VOLATILE and PARALLEL UNSAFE: a snapshot of the caller''s would lose events');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND proisstrict AND proname <> 'category' $$,
                'only category() is strict: elsewhere a NULL that is not allowed is an error, not a NULL result');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND prosecdef AND NOT coalesce(proconfig::text ~ 'search_path=', false) $$,
                'no function is SECURITY DEFINER without a pinned search_path');
SELECT is_empty($$ SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = prolang WHERE pronamespace = 'event_store'::regnamespace AND lanname IN ('sql', 'plpgsql') AND prosqlbody IS NULL
                     AND NOT coalesce(proconfig @> ARRAY['search_path=pg_catalog, pg_temp'], false) $$,
                         'every function in SQL or PL/pgSQL has a search_path of its own, or a body that was parsed at creation');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND proleakproof $$,
    'no function claims to be leakproof');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc p WHERE pronamespace = 'event_store'::regnamespace AND NOT EXISTS (SELECT 1 FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
                     AND (proname !~ '^_' OR prorettype = 'trigger'::regtype) $$,
                         'public functions and trigger functions may be executed by everybody');
SELECT ok((SELECT EXISTS (SELECT 1 FROM aclexplode(nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'USAGE') AND NOT EXISTS (SELECT 1
    FROM aclexplode(nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE')
             FROM pg_namespace WHERE nspname = 'event_store'), 'everybody may use the schema, nobody else may create in it');

-- Types and views.
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || coalesce(' COLLATE ' || (SELECT collname FROM pg_collation c
    WHERE c.oid = attcollation AND collname <> 'default'), ''), ', ' ORDER BY attnum)
             FROM pg_attribute WHERE attrelid = 'event_store.event'::regclass AND attnum > 0 AND NOT attisdropped),
          'position bigint, stream text COLLATE C, version bigint, event_id uuid, type text COLLATE C, schema_version integer, data jsonb, metadata jsonb, correlation_id text, causation_id text, '
          'occurred_at timestamp with time zone, recorded_at timestamp with time zone', 'the type event');
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'event_store.append_result'::regclass AND attnum > 0),
          'first_version bigint, last_version bigint, first_position bigint, last_position bigint, event_ids uuid[], duplicate boolean',
              'the type append_result');
SELECT columns_are('event_store', 'aggregates', '{name,owner,reducer,initial,snapshot_every,schema_version}'::name[]);
SELECT columns_are('event_store', 'event_tables',
    '{event_table,owner,events_estimate,last_position,heap_bytes,index_bytes,guarded,problem}'::name[]);
SELECT columns_are('event_store', 'event_catalog', '{event_table,type,registered,description,owner_team,example,events,streams,first_recorded_at,last_recorded_at,bytes,schema_versions,upcast_to}'::name[]);
SELECT columns_are('event_store', 'event_types', '{event_table,type,description,owner_team,example}'::name[]);
SELECT columns_are('event_store', 'upcasters', '{event_table,type,from_version,function}'::name[]);
SELECT columns_are('event_store', 'registered_event_types', '{event_table,type,description,owner_team,example}'::name[]);
SELECT columns_are('event_store', 'registered_upcasters', '{event_table,type,from_version,function}'::name[]);
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'event_store'::regnamespace AND 'raw' = ANY (proargnames) AND proparallel <> 'u' $$,
    'what upcasts is PARALLEL UNSAFE: upcasters are users'' functions');
SELECT is((SELECT tgenabled FROM pg_trigger WHERE tgname = 'note_upcaster'), 'A', 'sessions are told of new upcasters also in a restore');
SELECT columns_are('event_store', 'feeds', '{event_table,mark,checkpoint,last_position,events_behind,seconds_behind,held_by,held_by_prepared,held_since,notifications,last_notified_at,worker_pid}'::name[]);
SELECT columns_are('event_store', 'feed_marks', '{event_table,mark,recorded_at}'::name[]);
SELECT columns_are('event_store', 'mark_holders', '{event_table,position,pid,prepared_transaction,since,user,application_name,state}'::name[]);
SELECT columns_are('event_store', 'projections', '{name,owner,event_table,mode,status,partitions,position,lag_events,lag_seconds,rate,events,batches,errors,parked,own_appends,attempts,retry_at,last_error_at,last_error_position,last_error_event_id,last_error_stream,last_error_type,last_error_sqlstate,last_error,last_error_context,updated_at,worker_pid,rebuild_position,rebuild_percent,rebuild_eta}'::name[]);
SELECT columns_are('event_store', 'parked_events', '{projection,position,event_id,stream,type,attempts,sqlstate,message,context,parked_at,tried_at}'::name[]);
SELECT columns_are('event_store', 'registered_projections', '{name,owner,event_table,statement,function,types,categories,mode,partitions,search_path,tables,on_error,max_attempts,retry_delay,batch_size,batch_time,start_after,paused,restored,shadow_schema}'::name[]);
SELECT columns_are('event_store', 'projection_checkpoints', '{projection,rebuild,partition,position,event_id,events,batches,errors,own_appends,rate,updated_at,attempts,failed,retry_at,error_position,error_event_id,error_stream,error_type,error_sqlstate,error_message,error_context,error_at}'::name[]);
SELECT columns_are('event_store', 'projection_parked', '{projection,rebuild,position,event_id,stream,type,attempts,sqlstate,message,context,parked_at,tried_at}'::name[]);
SELECT columns_are('event_store', 'snapshots', '{event_table,stream,aggregate,schema_version,version,state,saved_at}'::name[]);
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c WHERE relnamespace = 'event_store'::regnamespace AND relkind = 'v' AND relname !~ '^_'
                     AND NOT EXISTS (SELECT 1 FROM aclexplode(relacl) a WHERE a.grantee = 0 AND a.privilege_type = 'SELECT') $$,
                         'everybody may read the views, but for those that only other views need');
SELECT is_empty($$ SELECT c.oid::regclass FROM pg_class c, aclexplode(relacl) a WHERE relnamespace = 'event_store'::regnamespace AND relkind IN ('r', 'S') AND a.grantee = 0 AND NOT (relname = 'aggregates' AND a.privilege_type = 'SELECT') $$,
                'nobody else may read or write the tables, but for the definitions of aggregates, which all may read');

-- Dump and upgrade.
SELECT set_eq($$ SELECT unnest(extconfig)::regclass::text FROM pg_extension WHERE extname = 'event_store' $$,
              $$ SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'event_store'::regnamespace AND relkind IN ('r', 'S') AND relname <> 'feed_marks' $$,
                  'all tables and sequences of the extension are dumped with their rows, but for what the worker writes anew');
SELECT is_empty($$ SELECT attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'event_store'::regnamespace AND relkind IN ('r', 'c', 'm') AND attnum > 0
                     AND atttypid IN ('regproc'::regtype, 'regprocedure'::regtype, 'regoper'::regtype, 'regoperator'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype, 'regnamespace'::regtype, 'regcollation'::regtype,
                                      '_regproc'::regtype, '_regprocedure'::regtype) $$, 'no column has a type that pg_upgrade refuses');
SELECT is((SELECT format('%s %s %s %s', superuser, trusted, relocatable, schema) FROM pg_available_extension_versions WHERE name = 'event_store'
    AND installed), 't t f pg_catalog', 'the extension is trusted, and makes its schema by itself');

-- Event triggers.
SELECT set_eq($$ SELECT format('%s on %s by %s, %s', evtname, evtevent, evtfoid::regproc, evtenabled) FROM pg_event_trigger WHERE evtname ~ '^event_store' $$,
              ARRAY['event_store_check_ddl on ddl_command_end by event_store._check_ddl, A',
                  'event_store_check_rewrite on table_rewrite by event_store._check_rewrite, A',
                    'event_store_check_drop on sql_drop by event_store._check_drop, A',
                    'event_store_check_sequence on ddl_command_start by event_store._check_sequence, A'], 'its event triggers are ENABLE ALWAYS');

-- Settings.
SELECT set_eq($$ SELECT format('%s %s %s %s', name, vartype, boot_val, context) FROM pg_settings WHERE name LIKE 'event_store.%' $$,
              ARRAY['event_store.notify enum auto superuser', 'event_store.sync_commit bool on superuser',
                    'event_store.notify_interval integer 5 sighup', 'event_store.standby_interval integer 200 sighup',
                    'event_store.worker_idle_timeout integer 300 sighup', 'event_store.max_workers integer 4 sighup', 'event_store.max_event_tables integer 1000 sighup',
                    'event_store.max_projectors integer 3 sighup'],
                  'its settings, and who may set them');
SELECT is_empty($$ SELECT name FROM pg_settings WHERE name LIKE 'event_store.%' AND (coalesce(short_desc, '') = '' OR coalesce(extra_desc, '') = '') $$, 'every setting is described');

-- The catalog of a database in which event tables are used stays consistent with what the functions return.
SELECT event_store.create_event_table('orders') \g /dev/null
SELECT event_store.append('orders', 'a-1', 'T', '{}') \g /dev/null
SELECT is((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
    WHERE attrelid = 'orders'::regclass AND attnum > 0),
          (SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = 'event_store.event'::regclass AND attnum > 0),
          'an event table begins as the type event');
SELECT is((SELECT array_agg(e.stream) FROM event_store.read_all('orders') e), '{a-1}', 'SELECT e.column of a reader');
SELECT is((SELECT count(*) FROM event_store.read_all('orders') e WHERE e = (SELECT x FROM event_store.read_stream('orders', 'a-1') x)),
    1::bigint, 'the readers return one and the same type');

-- No more settings than are documented: none of a build with TEST_HOOKS=1.
SELECT is((SELECT string_agg(substr(name, 13), ' ' ORDER BY name) FROM pg_settings WHERE name LIKE 'event\_store.%'),
    'max_event_tables max_projectors max_workers notify notify_interval standby_interval sync_commit worker_idle_timeout',
    'the settings');

SELECT * FROM finish();
