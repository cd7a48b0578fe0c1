/*
 * writer.h
 *	  Inserting events.
 */
#ifndef ES_WRITER_H
#define ES_WRITER_H

#include "append_steps.h"

typedef struct EventWriter EventWriter;

extern EventWriter *es_writer_begin(EventTable *table, int64 nevents);
extern int64 es_writer_put(EventWriter *writer, NewEvent *event);
extern void es_writer_end(EventWriter *writer);

#endif							/* ES_WRITER_H */
