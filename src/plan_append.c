/*
 * plan_append.c
 *	  How a call of an appending function is planned.
 *
 * In FROM, as appends are called, PostgreSQL sets up each argument of a function
 * as an expression of its own, eleven of them for append(), and most of them
 * defaults; that took a twentieth of an append.  Any other expression in that
 * place is set up and run as a whole.  So the call is wrapped in one that does
 * nothing.  All else stays: it is the same call, with the same privileges.
 */
#include "postgres.h"

#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/supportnodes.h"

PG_FUNCTION_INFO_V1(event_store_plan_append);

Datum
event_store_plan_append(PG_FUNCTION_ARGS)
{
	Node	   *request = (Node *) PG_GETARG_POINTER(0);
	FuncExpr   *call;

	if (!IsA(request, SupportRequestSimplify))
		PG_RETURN_POINTER(NULL);
	/* The planner's is on its stack. */
	call = makeNode(FuncExpr);
	*call = *((SupportRequestSimplify *) request)->fcall;
	PG_RETURN_POINTER(makeRelabelType((Expr *) call, call->funcresulttype, -1,
									  call->funccollid, COERCE_IMPLICIT_CAST));
}
