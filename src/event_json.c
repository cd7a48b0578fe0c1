/*
 * event_json.c
 *	  Events as a JSON array, for those who want them in one value.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "event_json.h"
#include "fmgr.h"
#include "scan.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

/* In the current memory context. */
void
es_event_array_begin(EventArray *array)
{
	memset(array, 0, sizeof(EventArray));
	array->context = CurrentMemoryContext;
	pushJsonbValue(&array->state, WJB_BEGIN_ARRAY, NULL);
}

Datum
es_event_array_end(EventArray *array)
{
	return JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&array->state, WJB_END_ARRAY, NULL)));
}

/* A column's value as JSON; containers are unpacked by pushJsonbValue(). */
static void
make_json_value(EventColumn column, Datum datum, JsonbValue *value)
{
	Jsonb	   *json;

	switch (es_columns[column].type)
	{
		case INT8OID:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(DatumGetInt64(datum));
			return;
		case INT4OID:
			value->type = jbvNumeric;
			value->val.numeric = int64_to_numeric(DatumGetInt32(datum));
			return;
		case JSONBOID:
			json = DatumGetJsonbP(datum);
			if (JB_ROOT_IS_SCALAR(json))
			{
				JsonbExtractScalar(&json->root, value);
				return;
			}
			value->type = jbvBinary;
			value->val.binary.data = &json->root;
			value->val.binary.len = VARSIZE(json) - VARHDRSZ;
			return;
		case TEXTOID:
			value->val.string.val = TextDatumGetCString(datum);
			break;
		case UUIDOID:
			value->val.string.val = DatumGetCString(DirectFunctionCall1(uuid_out, datum));
			break;
		case TIMESTAMPTZOID:
			value->val.string.val = JsonEncodeDateTime(palloc(MAXDATELEN + 1), datum, TIMESTAMPTZOID, NULL);
			break;
		default:
			elog(ERROR, "unexpected column %d", column);
	}
	value->type = jbvString;
	value->val.string.len = strlen(value->val.string.val);
}

/*
 * False, and the event is not added, if that would make the array too large, by
 * far, for a value of type jsonb.  For one alone there always is room, by the
 * limit that an append enforces.
 */
bool
es_event_array_add(EventArray *array, EventTable *table, TupleTableSlot *slot)
{
	MemoryContext old;
	Size		bytes = 0;

	for (int i = 0; i < ES_NUM_COLUMNS; i++)
	{
		bool		isnull;
		Datum		datum = es_slot_datum(slot, table, i, &isnull);

		if (!isnull && es_columns[i].type == JSONBOID)
			bytes += toast_raw_datum_size(datum);
	}
	if (array->count >= ES_ARRAY_MAX_EVENTS ||
		(array->count > 0 && array->bytes + bytes > ES_ARRAY_MAX_BYTES))
		return false;
	array->bytes += bytes;
	array->count++;
	old = MemoryContextSwitchTo(array->context);

	pushJsonbValue(&array->state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < ES_NUM_COLUMNS; i++)
	{
		JsonbValue	key = {.type = jbvString};
		JsonbValue	value = {.type = jbvNull};
		bool		isnull;
		Datum		datum = es_slot_datum(slot, table, i, &isnull);

		key.val.string.val = (char *) es_columns[i].name;
		key.val.string.len = strlen(es_columns[i].name);
		pushJsonbValue(&array->state, WJB_KEY, &key);
		if (!isnull)
		{
			/* The row's memory goes when the next one is fetched. */
			if (es_columns[i].type == JSONBOID)
				datum = PointerGetDatum(PG_DETOAST_DATUM_COPY(datum));
			make_json_value(i, datum, &value);
		}
		pushJsonbValue(&array->state, WJB_VALUE, &value);
	}
	pushJsonbValue(&array->state, WJB_END_OBJECT, NULL);
	MemoryContextSwitchTo(old);
	return true;
}
