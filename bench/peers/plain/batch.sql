COPY plain (stream, version, event_id, type, data) FROM STDIN (FORMAT binary)
