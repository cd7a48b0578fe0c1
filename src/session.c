/*
 * session.c
 *	  What the sessions of background processes have in common.
 *
 * A worker runs as the bootstrap superuser, a projector as the owner of
 * projections.  Neither may be anybody else, whatever ALTER DATABASE and ALTER
 * ROLE have set: as somebody else it would act with rights that are not meant
 * for it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "compat.h"
#include "miscadmin.h"
#include "session.h"
#include "utils/guc.h"

/*
 * Undoes what the settings of the database and of the role have changed for us;
 * they are made by their owners, who may set role, and session_authorization,
 * too.
 */
void
es_prepare_session(Oid user)
{
	static const char *const settings[][2] = {
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_deferrable", "off"},
		{"idle_in_transaction_session_timeout", "0"},
		ES_NO_TRANSACTION_TIMEOUT
		{"exit_on_error", "off"},

		/*
		 * What is lost in a crash is lost together with the record that it was
		 * there; and nobody must wait for standbys.
		 */
		{"synchronous_commit", "off"}
	};

	for (int i = 0; i < (int) lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);

	StartTransactionCommand();
	SetSessionAuthorization(user, superuser_arg(user));
	CommitTransactionCommand();
	SetConfigOption("role", "none", PGC_SUSET, PGC_S_OVERRIDE);
	if (!es_session_is_of(user))
		ereport(FATAL,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("event_store's background process could not become the role with OID %u", user)));
}

bool
es_session_is_of(Oid user)
{
	return GetUserId() == user && GetOuterUserId() == user && GetSessionUserId() == user;
}

/* After an error; returns when to try again. */
MonotonicTime
es_recover(int *failures)
{
	MonotonicTime again = es_now() + Min(ES_FIRST_RETRY << Min(*failures, 6), ES_LAST_RETRY);

	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	(*failures)++;
	RESUME_INTERRUPTS();
	return again;
}
