/*
 * utility.h
 *	  Commands of others that concern the workers.
 */
#ifndef ES_UTILITY_H
#define ES_UTILITY_H

extern void es_utility_init(void);

#endif							/* ES_UTILITY_H */
