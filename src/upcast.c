/*
 * upcast.c
 *	  Upcasting: data of an old schema version becomes that of the newest, when
 *	  an event is read.  What is stored stays as it is.
 *
 * An upcaster is a function of the user's from one schema version of a type's
 * data to the next.  Those of a table are rows of ours (event_type.c writes
 * them).  They are read past the executor, as those of a catalog, since readers
 * have no rights on them; once per backend, table and invalidation of the table,
 * and only by a read that upcasts.
 *
 * Whoever reads runs the function, with his own rights, as he would run one in a
 * view.  While it runs the transaction is read-only and the operation security-
 * restricted, so that it can neither write nor become somebody else; and it has
 * a search_path that is the same for all, so that what one reader gets, all get.
 * An error in it becomes SE008 without a subtransaction: it remains an error.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "arguments.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "errors.h"
#include "event_type.h"
#include "miscadmin.h"
#include "own_tables.h"
#include "read.h"
#include "scan.h"
#include "upcast.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/uuid.h"
#include "utils/varlena.h"

typedef struct Upcaster
{
	text	   *type;
	int32		from_version;
	char	   *function;		/* as registered: schema.name(jsonb) */
} Upcaster;

/* The upcasters of one table. */
typedef struct Upcasters
{
	MemoryContext context;		/* where all this is */
	int			readers;		/* how many reads use it */
	uint64		types;			/* a bit for each type, see type_bit() */
	int			count;
	Upcaster   *members;		/* sorted by type and version */
} Upcasters;

typedef struct CacheEntry
{
	Oid			relid;			/* hash key */
	uint64		generation;		/* of the description that they go with */
	Upcasters  *upcasters;		/* NULL: there are none */
} CacheEntry;

struct Upcasting
{
	Upcasters  *upcasters;
	uint64		types;			/* theirs */
	MemoryContext context;		/* lasts as long as the read */
	MemoryContext event_context;
	FmgrInfo   *functions;		/* one for each upcaster, looked up when first needed */
	TupleTableSlot *slot;
};

/* The event that is being upcast, for errors. */
typedef struct StoredEvent
{
	Relation	rel;
	pg_uuid_t  *event_id;
	text	   *stream;
	int64		version;
	text	   *type;
	int32		schema_version;
} StoredEvent;

static HTAB *cache = NULL;

static TupleTableSlot *upcast(Upcasting *upcasting, EventTable *table, TupleTableSlot *slot);
static Upcasters *look_up(EventTable *table);
static Upcasters *load(Oid event_table);
static void add(Upcasters *upcasters, HeapTuple tuple, TupleDesc desc);
static int	compare_upcasters(const void *a, const void *b);
static Datum run_chain(Upcasting *upcasting, Upcaster *upcaster, StoredEvent *event,
					   Datum data, int32 *schema_version);
static Datum call(Upcasting *upcasting, Upcaster *upcaster, StoredEvent *event, Datum data);
static void find_function(FmgrInfo *function, MemoryContext context,
						  Upcaster *upcaster, StoredEvent *event);
static Oid	function_by_name(const char *signature);
static bool concerns_server(int sqlerrcode);
pg_noreturn static void fail(Upcaster *upcaster, StoredEvent *event, const char *problem,
							 const char *context, const char *hint);

void
es_upcast_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(CacheEntry)};

	cache = hash_create("event_store upcasters", 16, &ctl, HASH_ELEM | HASH_BLOBS);
}

/* NULL if the table has no upcasters: there is nothing to do then. */
Upcasting *
es_upcast_begin(EventTable *table)
{
	Upcasters  *upcasters = look_up(table);
	Upcasting  *upcasting;

	if (upcasters == NULL)
		return NULL;
	upcasting = palloc0(sizeof(Upcasting));
	upcasting->upcasters = upcasters;
	upcasting->types = upcasters->types;
	upcasting->context = AllocSetContextCreate(CurrentMemoryContext, "event_store upcasting",
											   ALLOCSET_SMALL_SIZES);
	upcasting->event_context = AllocSetContextCreate(upcasting->context, "event_store upcast event",
													 ALLOCSET_DEFAULT_SIZES);
	upcasting->functions = MemoryContextAllocZero(upcasting->context, sizeof(FmgrInfo) * upcasters->count);
	upcasters->readers++;
	return upcasting;
}

void
es_upcast_end(Upcasting *upcasting)
{
	if (upcasting == NULL)
		return;
	MemoryContextDelete(upcasting->context);
	upcasting->upcasters->readers--;
	pfree(upcasting);
}

/* A bit for the name of a type.  Different names may have the same. */
static inline uint64
type_bit(const char *name, int length)
{
	return UINT64CONST(1) << ((length + name[length / 2] * 3 + name[length - 1]) & 63);
}

/*
 * Tells most events off that have no upcasters.  To deform the row up to its type
 * would cost a fifth of what it takes to read it otherwise; but what stands before
 * it is not null and has its place, or one length.
 */
static inline bool
may_have_upcaster(Upcasting *upcasting, TupleTableSlot *slot)
{
	HeapTuple	tuple;
	char	   *value;

	if (!TTS_IS_BUFFERTUPLE(slot) && !TTS_IS_HEAPTUPLE(slot))
		return true;
	tuple = ((HeapTupleTableSlot *) slot)->tuple;
	value = (char *) tuple->t_data + tuple->t_data->t_hoff + sizeof(int64);
	value += DOUBLEALIGN(VARSIZE_ANY(value)) + sizeof(int64) + UUID_LEN;
	if (!VARATT_IS_SHORT(value) || VARSIZE_SHORT(value) == VARHDRSZ_SHORT)
		return true;
	return (upcasting->types & type_bit(VARDATA_SHORT(value), VARSIZE_SHORT(value) - VARHDRSZ_SHORT)) != 0;
}

/*
 * The event in its newest shape, until the next call; the same slot if that is
 * how it is stored.  An event that no upcaster takes is one: it is newer than
 * all of them, or older.
 */
TupleTableSlot *
es_upcast(Upcasting *upcasting, EventTable *table, TupleTableSlot *slot)
{
	return may_have_upcaster(upcasting, slot) ? upcast(upcasting, table, slot) : slot;
}

static pg_noinline TupleTableSlot *
upcast(Upcasting *upcasting, EventTable *table, TupleTableSlot *slot)
{
	TupleTableSlot *result = slot;
	MemoryContext old;
	Upcaster	key;
	Upcaster   *upcaster;
	bool		isnull;

	MemoryContextReset(upcasting->event_context);
	old = MemoryContextSwitchTo(upcasting->event_context);
	key.from_version = DatumGetInt32(es_slot_datum(slot, table, ES_SCHEMA_VERSION, &isnull));
	key.type = DatumGetTextPP(es_slot_datum(slot, table, ES_TYPE, &isnull));
	upcaster = bsearch(&key, upcasting->upcasters->members, upcasting->upcasters->count, sizeof(Upcaster), compare_upcasters);
	if (upcaster)
	{
		StoredEvent event = {.rel = table->rel,.type = key.type,.schema_version = key.from_version};
		TupleDesc	desc = slot->tts_tupleDescriptor;
		int32		schema_version = key.from_version;
		Datum		data;

		/* Nothing can be looked up any more when there has been an error. */
		event.event_id = DatumGetUUIDP(es_slot_datum(slot, table, ES_EVENT_ID, &isnull));
		event.stream = DatumGetTextPP(es_slot_datum(slot, table, ES_STREAM, &isnull));
		event.version = es_slot_int64(slot, table, ES_VERSION);
		data = run_chain(upcasting, upcaster, &event,
						 es_slot_datum(slot, table, ES_DATA, &isnull), &schema_version);

		/* Of a descriptor of its own: the slot's may go before us. */
		MemoryContextSwitchTo(upcasting->context);
		if (upcasting->slot == NULL)
			upcasting->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(desc), &TTSOpsVirtual);
		result = upcasting->slot;
		slot_getallattrs(slot);
		ExecClearTuple(result);
		memcpy(result->tts_values, slot->tts_values, sizeof(Datum) * desc->natts);
		memcpy(result->tts_isnull, slot->tts_isnull, sizeof(bool) * desc->natts);
		result->tts_values[table->attnum[ES_DATA] - 1] = data;
		result->tts_values[table->attnum[ES_SCHEMA_VERSION] - 1] = Int32GetDatum(schema_version);
		ExecStoreVirtualTuple(result);
	}
	MemoryContextSwitchTo(old);
	return result;
}

/* Takes the data from upcaster to upcaster, to the end of the chain. */
static Datum
run_chain(Upcasting *upcasting, Upcaster *upcaster, StoredEvent *event,
		  Datum data, int32 *schema_version)
{
	Upcaster   *end = upcasting->upcasters->members + upcasting->upcasters->count;
	bool		read_only = XactReadOnly;
	int			nest_level = NewGUCNestLevel();
	Oid			userid;
	int			sec_context;

	/* An error restores all that by itself, at the abort. */
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(userid, sec_context | SECURITY_RESTRICTED_OPERATION);
	XactReadOnly = true;
	do
	{
		data = call(upcasting, upcaster, event, data);
		(*schema_version)++;
		upcaster++;
	} while (upcaster < end && upcaster->from_version == *schema_version &&
			 es_compare_texts(upcaster->type, event->type) == 0);
	XactReadOnly = read_only;
	SetUserIdAndSecContext(userid, sec_context);
	/* Not as at a commit, which would keep what a plain SET has set. */
	AtEOXact_GUC(false, nest_level);
	return data;
}

static Datum
call(Upcasting *upcasting, Upcaster *upcaster, StoredEvent *event, Datum data)
{
	LOCAL_FCINFO(fcinfo, 1);
	FmgrInfo   *function = &upcasting->functions[upcaster - upcasting->upcasters->members];
	Jsonb	   *result;
	Datum		value;

	if (!OidIsValid(function->fn_oid))
		find_function(function, upcasting->context, upcaster, event);
	InitFunctionCallInfoData(*fcinfo, function, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = data;
	fcinfo->args[0].isnull = false;

	PG_TRY();
	{
		value = FunctionCallInvoke(fcinfo);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* One that it has met by reading itself names its event already. */
		if (geterrcode() == ES_UPCAST_FAILED || concerns_server(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(upcasting->event_context);
		error = CopyErrorData();
		FlushErrorState();
		/* The context of the error has what stands outside of us already. */
		error_context_stack = NULL;
		fail(upcaster, event,
			 psprintf("raised %s: %s", unpack_sql_state(error->sqlerrcode), error->message),
			 error->context, "event_store.check_upcasters() lists all events that cannot be upcast.");
	}
	PG_END_TRY();

	if (fcinfo->isnull)
		fail(upcaster, event, "returned NULL", NULL, "The data of an event may be a JSON null, but not NULL.");
	result = DatumGetJsonbP(value);
	if (VARSIZE(result) > ES_MAX_EVENT_BYTES)
		fail(upcaster, event,
			 psprintf("returned %zu bytes; at most %d are allowed", (Size) VARSIZE(result), ES_MAX_EVENT_BYTES),
			 NULL, "Store large objects elsewhere, and refer to them in the event.");
	return JsonbPGetDatum(result);
}

/* As registered, by its name; and then as a call in SQL would. */
static void
find_function(FmgrInfo *function, MemoryContext context, Upcaster *upcaster, StoredEvent *event)
{
	Oid			oid = function_by_name(upcaster->function);
	char	   *problem = OidIsValid(oid) ? es_upcaster_problem(oid) : "does not exist";

	if (problem)
		fail(upcaster, event, problem, NULL,
			 "Its owner puts it right, or the owner of the event table registers another by event_store.register_upcaster().");
	if (es_function_aclcheck(oid, GetUserId()) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION, upcaster->function);
	InvokeFunctionExecuteHook(oid);
	fmgr_info_cxt(oid, function, context);
}

/*
 * Past the privileges on its schema, as in a view: it was named by the owner of
 * the event table, not by the reader.
 */
static Oid
function_by_name(const char *signature)
{
	char	   *name = pstrdup(signature);
	char	   *arguments = strrchr(name, '(');
	Oid			types[] = {JSONBOID};
	List	   *names;
	Oid			schema;

	if (arguments == NULL || strcmp(arguments, "(jsonb)") != 0)
		return InvalidOid;
	*arguments = '\0';
	if (!SplitIdentifierString(name, '.', &names) || list_length(names) != 2)
		return InvalidOid;
	schema = get_namespace_oid(linitial(names), true);
	if (!OidIsValid(schema))
		return InvalidOid;
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
						   CStringGetDatum((char *) lsecond(names)),
						   PointerGetDatum(buildoidvector(types, 1)),
						   ObjectIdGetDatum(schema));
}

/* Why this function is no upcaster; NULL if it can be one. */
char *
es_upcaster_problem(Oid function)
{
	HeapTuple	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	Form_pg_proc proc;
	char	   *problem = NULL;

	if (!HeapTupleIsValid(tuple))
		return "does not exist";
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->prokind != PROKIND_FUNCTION)
		problem = "is not a plain function";
	else if (proc->pronargs != 1 || proc->proargtypes.values[0] != JSONBOID)
		problem = "does not take one jsonb";
	else if (proc->proretset || proc->prorettype != JSONBOID)
		problem = "does not return one jsonb";
	else if (proc->provolatile == PROVOLATILE_VOLATILE)
		problem = "is VOLATILE";
	else if (isAnyTempNamespace(proc->pronamespace))
		problem = "is temporary";
	ReleaseSysCache(tuple);
	return problem;
}

/* Errors that say nothing about the function, and that drivers know by their code. */
static bool
concerns_server(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_TO_CATEGORY(ERRCODE_TRANSACTION_ROLLBACK):
		case ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES):
		case ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION):
		case ERRCODE_TO_CATEGORY(ERRCODE_SYSTEM_ERROR):
			return true;
		default:
			return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

static void
fail(Upcaster *upcaster, StoredEvent *event, const char *problem,
	 const char *context, const char *hint)
{
	ereport(ERROR,
			(errcode(ES_UPCAST_FAILED),
			 errmsg("could not upcast event %s, version " INT64_FORMAT " of stream \"%s\": upcaster %s %s",
					DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(event->event_id))),
					event->version, text_to_cstring(event->stream), upcaster->function, problem),
			 errdetail("The event is of type \"%s\" and stored with schema version %d; the upcaster takes it from %d to %d.",
					   text_to_cstring(event->type), event->schema_version,
					   upcaster->from_version, upcaster->from_version + 1),
			 errhint("%s With raw => true the event is read as it is stored.", hint),
			 context ? errcontext("%s", context) : 0,
			 errtable(event->rel)));
}

/*
 * The upcasters of a table as of its description, NULL for none: one that comes
 * or goes invalidates that.
 */
static Upcasters *
look_up(EventTable *table)
{
	bool		found;
	CacheEntry *entry = hash_search(cache, &table->relid, HASH_ENTER, &found);
	Upcasters  *old = found ? entry->upcasters : NULL;

	if (found && entry->generation == table->generation)
		return old;
	entry->generation = 0;
	entry->upcasters = NULL;
	if (old && old->readers == 0)
		MemoryContextDelete(old->context);
	else if (old)				/* by reads further up the stack, or that have failed */
		MemoryContextSetParent(old->context, TopTransactionContext);
	entry->upcasters = load(table->relid);
	entry->generation = table->generation;
	return entry->upcasters;
}

/* With a snapshot that is newer than the last invalidation, as catalogs are read. */
static Upcasters *
load(Oid event_table)
{
	Oid			relid = es_own_table(ES_UPCASTERS, true);
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, AccessShareLock) : NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	MemoryContext context;
	Upcasters  *upcasters = NULL;

	if (rel == NULL)
		return NULL;
	ScanKeyInit(&key, ES_UPCASTER_EVENT_TABLE, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(event_table));
	scan = systable_beginscan(rel, es_primary_key_index(rel), true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		if (upcasters == NULL)
		{
			context = AllocSetContextCreate(CurrentMemoryContext, "event_store upcasters",
											ALLOCSET_SMALL_SIZES);
			upcasters = MemoryContextAllocZero(context, sizeof(Upcasters));
			upcasters->context = context;
		}
		add(upcasters, tuple, RelationGetDescr(rel));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (upcasters)
	{
		qsort(upcasters->members, upcasters->count, sizeof(Upcaster), compare_upcasters);
		MemoryContextSetParent(upcasters->context, CacheMemoryContext);
	}
	return upcasters;
}

static void
add(Upcasters *upcasters, HeapTuple tuple, TupleDesc desc)
{
	MemoryContext old = MemoryContextSwitchTo(upcasters->context);
	int			n = upcasters->count++;
	Upcaster   *upcaster;
	bool		isnull;

	upcasters->members = n == 0 ? palloc(sizeof(Upcaster)) :
		repalloc(upcasters->members, sizeof(Upcaster) * (n + 1));
	upcaster = &upcasters->members[n];
	upcaster->type = DatumGetTextPCopy(heap_getattr(tuple, ES_UPCASTER_TYPE, desc, &isnull));
	upcaster->from_version = DatumGetInt32(heap_getattr(tuple, ES_UPCASTER_FROM_VERSION, desc, &isnull));
	upcaster->function = TextDatumGetCString(heap_getattr(tuple, ES_UPCASTER_FUNCTION, desc, &isnull));
	if (VARSIZE_ANY_EXHDR(upcaster->type) > 0)
		upcasters->types |= type_bit(VARDATA_ANY(upcaster->type), VARSIZE_ANY_EXHDR(upcaster->type));
	MemoryContextSwitchTo(old);
}

static int
compare_upcasters(const void *a, const void *b)
{
	const Upcaster *left = a;
	const Upcaster *right = b;
	int			order = es_compare_texts(left->type, right->type);

	if (order != 0)
		return order;
	return (left->from_version > right->from_version) - (left->from_version < right->from_version);
}
