/*
 * category.h
 *	  The category of a stream.
 */
#ifndef ES_CATEGORY_H
#define ES_CATEGORY_H

extern text *es_category(const text *stream);

#endif							/* ES_CATEGORY_H */
