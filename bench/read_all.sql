-- A batch of the feed of 100,000 events.
\set after random(0, 98000)
SELECT * FROM event_store.read_all('ev', after => :after, max_count => 1000);
