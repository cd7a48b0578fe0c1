/*
 * merge.c
 *	  merge(), the reducer that comes with the extension: state || data.
 *
 * The operator || takes both objects apart, sorts all keys and puts a new
 * object together.  But keys are stored in order, and values can be copied as
 * they are: a fold by merge() is several times faster that way.
 */
#include "postgres.h"

#include "arguments.h"
#include "compat.h"
#include "event_table.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "merge.h"

PG_FUNCTION_INFO_V1(event_store_merge);

/* One of the two objects, and the entry that is being looked at. */
typedef struct Side
{
	const JEntry *entries;		/* of all keys, then of all values */
	const char *contents;
	uint32		npairs;
	uint32		at;
	uint32		start;			/* of the entry's contents */
	uint32		end;
} Side;

/* The object that is being made. */
typedef struct Target
{
	JEntry	   *entries;
	char	   *contents;
	uint32		at;
	uint32		end;
} Target;

pg_noreturn static void
cannot_merge(Jsonb *state, Jsonb *data)
{
	if (JB_ROOT_IS_OBJECT(state) && JB_ROOT_IS_OBJECT(data))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the state would be too large"),
				 errdetail("It has %u bytes, the event's data have %u; a JSON object has room for %u.",
						   (unsigned) VARSIZE(state), (unsigned) VARSIZE(data), JENTRY_OFFLENMASK)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("event_store.merge() merges JSON objects only"),
			 errdetail("The %s no object.", JB_ROOT_IS_OBJECT(state) ? "event's data are" : "state is")));
}

Datum
event_store_merge(PG_FUNCTION_ARGS)
{
	Datum		data;
	bool		isnull;
	Jsonb	   *merged;

	if (PG_ARGISNULL(0))
		es_null_argument("state");
	if (PG_ARGISNULL(1))
		es_null_argument("event");
	data = GetAttributeByNum(PG_GETARG_HEAPTUPLEHEADER(1), ES_DATA + 1, &isnull);
	if (isnull)
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	merged = es_merge(PG_GETARG_JSONB_P(0), DatumGetJsonbP(data));
	if (merged == NULL)
		cannot_merge(PG_GETARG_JSONB_P(0), DatumGetJsonbP(data));
	PG_RETURN_JSONB_P(merged);
}

static void
look_at_first(Side *side, Jsonb *object)
{
	side->npairs = JB_ROOT_COUNT(object);
	side->entries = object->root.children;
	side->contents = (const char *) &object->root.children[2 * side->npairs];
	side->at = side->start = side->end = 0;
	if (side->npairs > 0)
		JBE_ADVANCE_OFFSET(side->end, side->entries[0]);
}

static inline void
look_at(Side *side, uint32 entry)
{
	while (side->at < entry)
	{
		side->start = side->end;
		side->at++;
		JBE_ADVANCE_OFFSET(side->end, side->entries[side->at]);
	}
}

/* In the order of keys in an object: shorter ones first. */
static inline int
compare_keys(const Side *a, const Side *b)
{
	uint32		la = a->end - a->start;
	uint32		lb = b->end - b->start;

	if (la != lb)
		return la < lb ? -1 : 1;
	return memcmp(a->contents + a->start, b->contents + b->start, la);
}

/* Numbers and containers are aligned, by padding that is part of the entry. */
static inline void
copy_entry(Target *target, const Side *side)
{
	JEntry		type = side->entries[side->at] & JENTRY_TYPEMASK;
	uint32		start = side->start;
	uint32		begin = target->end;

	if (type == JENTRY_ISNUMERIC || type == JENTRY_ISCONTAINER)
	{
		start = INTALIGN(start);
		while (target->end < INTALIGN(begin))
			target->contents[target->end++] = 0;
	}
	memcpy(target->contents + target->end, side->contents + start, side->end - start);
	target->end += side->end - start;
	target->entries[target->at] = type |
		(target->at % JB_OFFSET_STRIDE == 0 ? target->end | JENTRY_HAS_OFF : target->end - begin);
	target->at++;
}

/*
 * The keys of the data put over those of the state, in the current memory
 * context; NULL if one of them is no object, or both are too large together.
 */
Jsonb *
es_merge(Jsonb *state, Jsonb *data)
{
	Side		sides[2];
	Side	   *left = &sides[0];
	Side	   *right = &sides[1];
	uint32		left_at = 0;
	uint32		right_at = 0;
	Size		size = (Size) VARSIZE(state) + VARSIZE(data);
	uint32	   *pairs;			/* 2 * number + side, in their new order */
	uint32		npairs = 0;
	Jsonb	   *merged;
	Target		target;

	if (!JB_ROOT_IS_OBJECT(state) || !JB_ROOT_IS_OBJECT(data))
		return NULL;
	look_at_first(left, state);
	look_at_first(right, data);
	size += 3 * (left->npairs + right->npairs);
	if (size > JENTRY_OFFLENMASK)
		return NULL;

	pairs = palloc(sizeof(uint32) * (left->npairs + right->npairs));
	while (left_at < left->npairs || right_at < right->npairs)
	{
		int			order;

		if (left_at < left->npairs)
			look_at(left, left_at);
		if (right_at < right->npairs)
			look_at(right, right_at);
		order = left_at == left->npairs ? 1 :
			right_at == right->npairs ? -1 : compare_keys(left, right);
		pairs[npairs++] = order < 0 ? 2 * left_at : 2 * right_at + 1;
		left_at += order <= 0;
		right_at += order >= 0;
	}

	merged = palloc(size);
	merged->root.header = npairs | JB_FOBJECT;
	target.entries = merged->root.children;
	target.contents = (char *) &merged->root.children[2 * npairs];
	target.at = target.end = 0;
	look_at_first(left, state);
	look_at_first(right, data);
	for (uint32 i = 0; i < npairs; i++)
	{
		Side	   *side = &sides[pairs[i] % 2];

		look_at(side, pairs[i] / 2);
		copy_entry(&target, side);
	}
	for (uint32 i = 0; i < npairs; i++)
	{
		Side	   *side = &sides[pairs[i] % 2];

		look_at(side, side->npairs + pairs[i] / 2);
		copy_entry(&target, side);
	}
	SET_VARSIZE(merged, target.contents + target.end - (char *) merged);
	pfree(pairs);
	return merged;
}
