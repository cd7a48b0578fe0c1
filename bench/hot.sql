-- All clients write the one stream, at the version that they have read; whose
-- append failed reads again.
SELECT stream_version('hot-' || :round) AS version \gset
SELECT try_append('hot-' || :round, :version, :data);
