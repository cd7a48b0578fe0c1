/*
 * result.c
 *	  The row that an append returns.
 *
 * The descriptor is looked up in every call: a row type can be altered.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "result.h"
#include "utils/array.h"

Datum
es_append_result(FunctionCallInfo fcinfo, StreamAppend *append)
{
	TupleDesc	desc;
	Datum		values[ES_APPEND_RESULT_COLUMNS];
	bool		nulls[ES_APPEND_RESULT_COLUMNS] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE ||
		desc->natts != ES_APPEND_RESULT_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the type event_store.append_result has been altered")));
	es_append_values(append, values);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

void
es_append_values(StreamAppend *append, Datum *values)
{
	Datum	   *ids = palloc(sizeof(Datum) * append->nevents);

	for (int i = 0; i < append->nevents; i++)
		ids[i] = append->events[i].values[ES_EVENT_ID];
	values[0] = Int64GetDatum(append->first_version);
	values[1] = Int64GetDatum(append->last_version);
	values[2] = Int64GetDatum(append->first_position);
	values[3] = Int64GetDatum(append->last_position);
	values[4] = PointerGetDatum(construct_array(ids, append->nevents, UUIDOID, 16, false, 'c'));
	values[5] = BoolGetDatum(append->duplicate);
}
