/*
 * test_alloc.h
 *	  Lets the n-th allocation of this library fail, in a build with TEST_HOOKS=1.
 *
 * Included before each of our files by the compiler's command line.  So all that
 * our own code allocates goes by here, and nothing that the server does by
 * itself.  A call of the server that allocates on our behalf counts as one
 * allocation: it fails before it has done anything.
 */
#ifndef ES_TEST_ALLOC_H
#define ES_TEST_ALLOC_H

#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "commands/async.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplesort.h"
#include "utils/tuplestore.h"

/* Raises an error if it is the turn of this one. */
extern void es_test_alloc(void);

#define ES_MAY_FAIL(function, ...)	(es_test_alloc(), (function) (__VA_ARGS__))

#define palloc(...)						ES_MAY_FAIL(palloc, __VA_ARGS__)
#define palloc0(...)					ES_MAY_FAIL(palloc0, __VA_ARGS__)
#define palloc_extended(...)			ES_MAY_FAIL(palloc_extended, __VA_ARGS__)
#define repalloc(...)					ES_MAY_FAIL(repalloc, __VA_ARGS__)
#define pstrdup(...)					ES_MAY_FAIL(pstrdup, __VA_ARGS__)
#define pnstrdup(...)					ES_MAY_FAIL(pnstrdup, __VA_ARGS__)
#define psprintf(...)					ES_MAY_FAIL(psprintf, __VA_ARGS__)
#define MemoryContextAlloc(...)			ES_MAY_FAIL(MemoryContextAlloc, __VA_ARGS__)
#define MemoryContextAllocZero(...)		ES_MAY_FAIL(MemoryContextAllocZero, __VA_ARGS__)
#define MemoryContextAllocZeroAligned(...)	ES_MAY_FAIL(MemoryContextAllocZeroAligned, __VA_ARGS__)
#define MemoryContextAllocHuge(...)		ES_MAY_FAIL(MemoryContextAllocHuge, __VA_ARGS__)
#define MemoryContextAllocExtended(...)	ES_MAY_FAIL(MemoryContextAllocExtended, __VA_ARGS__)
#define MemoryContextStrdup(...)		ES_MAY_FAIL(MemoryContextStrdup, __VA_ARGS__)
#define AllocSetContextCreateInternal(...)	ES_MAY_FAIL(AllocSetContextCreateInternal, __VA_ARGS__)

/* Only one of these allocates; commit callbacks may well look something up. */
#define hash_search(table, key, action, found) \
	(((action) == HASH_ENTER ? es_test_alloc() : (void) 0), (hash_search) (table, key, action, found))
#define hash_create(...)				ES_MAY_FAIL(hash_create, __VA_ARGS__)
#define lappend(...)					ES_MAY_FAIL(lappend, __VA_ARGS__)
#define lappend_int(...)				ES_MAY_FAIL(lappend_int, __VA_ARGS__)
#define lappend_oid(...)				ES_MAY_FAIL(lappend_oid, __VA_ARGS__)
#define lcons(...)						ES_MAY_FAIL(lcons, __VA_ARGS__)
#define list_make1_impl(...)			ES_MAY_FAIL(list_make1_impl, __VA_ARGS__)
#define list_make2_impl(...)			ES_MAY_FAIL(list_make2_impl, __VA_ARGS__)

#define initStringInfo(...)				ES_MAY_FAIL(initStringInfo, __VA_ARGS__)
#define makeStringInfo(...)				ES_MAY_FAIL(makeStringInfo, __VA_ARGS__)
#define appendStringInfo(...)			ES_MAY_FAIL(appendStringInfo, __VA_ARGS__)
#define appendStringInfoString(...)		ES_MAY_FAIL(appendStringInfoString, __VA_ARGS__)
#define appendStringInfoChar(...)		ES_MAY_FAIL(appendStringInfoChar, __VA_ARGS__)
#define cstring_to_text(...)			ES_MAY_FAIL(cstring_to_text, __VA_ARGS__)
#define cstring_to_text_with_len(...)	ES_MAY_FAIL(cstring_to_text_with_len, __VA_ARGS__)
#define text_to_cstring(...)			ES_MAY_FAIL(text_to_cstring, __VA_ARGS__)
#define quote_identifier(...)			ES_MAY_FAIL(quote_identifier, __VA_ARGS__)
#define quote_literal_cstr(...)			ES_MAY_FAIL(quote_literal_cstr, __VA_ARGS__)
#define quote_qualified_identifier(...)	ES_MAY_FAIL(quote_qualified_identifier, __VA_ARGS__)
#define get_rel_name(...)				ES_MAY_FAIL(get_rel_name, __VA_ARGS__)
#define get_namespace_name(...)			ES_MAY_FAIL(get_namespace_name, __VA_ARGS__)
#define pg_detoast_datum(...)			ES_MAY_FAIL(pg_detoast_datum, __VA_ARGS__)
#define pg_detoast_datum_copy(...)		ES_MAY_FAIL(pg_detoast_datum_copy, __VA_ARGS__)
#define pg_detoast_datum_packed(...)	ES_MAY_FAIL(pg_detoast_datum_packed, __VA_ARGS__)
#define DirectFunctionCall1Coll(...)	ES_MAY_FAIL(DirectFunctionCall1Coll, __VA_ARGS__)
#define construct_array(...)			ES_MAY_FAIL(construct_array, __VA_ARGS__)
#define deconstruct_array(...)			ES_MAY_FAIL(deconstruct_array, __VA_ARGS__)
#define pushJsonbValue(...)				ES_MAY_FAIL(pushJsonbValue, __VA_ARGS__)
#define JsonbValueToJsonb(...)			ES_MAY_FAIL(JsonbValueToJsonb, __VA_ARGS__)
#define JsonbIteratorInit(...)			ES_MAY_FAIL(JsonbIteratorInit, __VA_ARGS__)

#define heap_form_tuple(...)			ES_MAY_FAIL(heap_form_tuple, __VA_ARGS__)
#define heap_copy_tuple_as_datum(...)	ES_MAY_FAIL(heap_copy_tuple_as_datum, __VA_ARGS__)
#define CreateTupleDescCopy(...)		ES_MAY_FAIL(CreateTupleDescCopy, __VA_ARGS__)
#define BlessTupleDesc(...)				ES_MAY_FAIL(BlessTupleDesc, __VA_ARGS__)
#define MakeSingleTupleTableSlot(...)	ES_MAY_FAIL(MakeSingleTupleTableSlot, __VA_ARGS__)
#define table_slot_create(...)			ES_MAY_FAIL(table_slot_create, __VA_ARGS__)
#define InitMaterializedSRF(...)		ES_MAY_FAIL(InitMaterializedSRF, __VA_ARGS__)
#define get_call_result_type(...)		ES_MAY_FAIL(get_call_result_type, __VA_ARGS__)
#define tuplestore_begin_heap(...)		ES_MAY_FAIL(tuplestore_begin_heap, __VA_ARGS__)
#define tuplestore_putvalues(...)		ES_MAY_FAIL(tuplestore_putvalues, __VA_ARGS__)
#define tuplestore_puttupleslot(...)	ES_MAY_FAIL(tuplestore_puttupleslot, __VA_ARGS__)
#define tuplesort_begin_heap(...)		ES_MAY_FAIL(tuplesort_begin_heap, __VA_ARGS__)
#define tuplesort_puttupleslot(...)		ES_MAY_FAIL(tuplesort_puttupleslot, __VA_ARGS__)

#define SearchSysCache1(...)			ES_MAY_FAIL(SearchSysCache1, __VA_ARGS__)
#define relation_open(...)				ES_MAY_FAIL(relation_open, __VA_ARGS__)
#define try_relation_open(...)			ES_MAY_FAIL(try_relation_open, __VA_ARGS__)
#define table_open(...)					ES_MAY_FAIL(table_open, __VA_ARGS__)
#define index_open(...)					ES_MAY_FAIL(index_open, __VA_ARGS__)
#define systable_beginscan(...)			ES_MAY_FAIL(systable_beginscan, __VA_ARGS__)
#define RegisterSnapshot(...)			ES_MAY_FAIL(RegisterSnapshot, __VA_ARGS__)
#define PushActiveSnapshot(...)			ES_MAY_FAIL(PushActiveSnapshot, __VA_ARGS__)
#define LockAcquire(...)				ES_MAY_FAIL(LockAcquire, __VA_ARGS__)
#define LockRelationOid(...)			ES_MAY_FAIL(LockRelationOid, __VA_ARGS__)
#define ConditionalLockRelationOid(...)	ES_MAY_FAIL(ConditionalLockRelationOid, __VA_ARGS__)
#define GetLockConflicts(...)			ES_MAY_FAIL(GetLockConflicts, __VA_ARGS__)
#define GetLockStatusData(...)			ES_MAY_FAIL(GetLockStatusData, __VA_ARGS__)

#define nextval_internal(...)			ES_MAY_FAIL(nextval_internal, __VA_ARGS__)
#define table_multi_insert(...)			ES_MAY_FAIL(table_multi_insert, __VA_ARGS__)
#define table_tuple_insert(...)			ES_MAY_FAIL(table_tuple_insert, __VA_ARGS__)
#define CatalogTupleInsert(...)			ES_MAY_FAIL(CatalogTupleInsert, __VA_ARGS__)
#define CatalogTupleUpdate(...)			ES_MAY_FAIL(CatalogTupleUpdate, __VA_ARGS__)
#define CommandCounterIncrement(...)	ES_MAY_FAIL(CommandCounterIncrement, __VA_ARGS__)
#define Async_Notify(...)				ES_MAY_FAIL(Async_Notify, __VA_ARGS__)
#define SPI_connect(...)				ES_MAY_FAIL(SPI_connect, __VA_ARGS__)
#define SPI_execute(...)				ES_MAY_FAIL(SPI_execute, __VA_ARGS__)
#define SPI_execute_plan(...)			ES_MAY_FAIL(SPI_execute_plan, __VA_ARGS__)
#define SPI_execute_with_args(...)		ES_MAY_FAIL(SPI_execute_with_args, __VA_ARGS__)
#define SPI_prepare(...)				ES_MAY_FAIL(SPI_prepare, __VA_ARGS__)
#define SPI_getvalue(...)				ES_MAY_FAIL(SPI_getvalue, __VA_ARGS__)
#define ExecInitExprWithParams(...)		ES_MAY_FAIL(ExecInitExprWithParams, __VA_ARGS__)
#define CreateExecutorState(...)		ES_MAY_FAIL(CreateExecutorState, __VA_ARGS__)
#define CreateStandaloneExprContext(...)	ES_MAY_FAIL(CreateStandaloneExprContext, __VA_ARGS__)
#define BeginInternalSubTransaction(...)	ES_MAY_FAIL(BeginInternalSubTransaction, __VA_ARGS__)
#define CopyErrorData(...)				ES_MAY_FAIL(CopyErrorData, __VA_ARGS__)

#endif							/* ES_TEST_ALLOC_H */
