/*
 * errors.h
 *	  The SQLSTATEs of this extension.
 *
 * Class SE: classes beginning with I to Z are free for implementations.  None
 * of them is one that drivers retry blindly, such as 40001.
 */
#ifndef ES_ERRORS_H
#define ES_ERRORS_H

#include "utils/elog.h"

#define ES_ERRCODE(digit)	MAKE_SQLSTATE('S', 'E', '0', '0', digit)

#define ES_WRONG_EXPECTED_VERSION	ES_ERRCODE('1')
#define ES_APPEND_ONLY_VIOLATION	ES_ERRCODE('2')
#define ES_EVENT_ID_CONFLICT		ES_ERRCODE('3')
#define ES_NOT_AN_EVENT_TABLE		ES_ERRCODE('4')
#define ES_UNGUARDED_EVENT_TABLE	ES_ERRCODE('5')
#define ES_PROJECTION_FAILED		ES_ERRCODE('7')
#define ES_UPCAST_FAILED			ES_ERRCODE('8')
#define ES_CHECKPOINT_DIVERGED		ES_ERRCODE('9')

#endif							/* ES_ERRORS_H */
