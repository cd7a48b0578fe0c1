/*
 * table_ddl.h
 *	  Making and mending event tables.
 */
#ifndef ES_TABLE_DDL_H
#define ES_TABLE_DDL_H

extern Oid	es_table_being_mended;

#endif							/* ES_TABLE_DDL_H */
