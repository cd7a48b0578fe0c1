SELECT pgq.ticker('bench') \watch 0.1
