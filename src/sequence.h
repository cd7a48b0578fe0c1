/*
 * sequence.h
 *	  The sequence that positions are drawn from.
 */
#ifndef ES_SEQUENCE_H
#define ES_SEQUENCE_H

extern int64 es_sequence_last_value(Oid sequence, bool *logged);
extern int64 es_sequence_draw(Oid sequence, int64 n);

#endif							/* ES_SEQUENCE_H */
