# Exactly once: however a batch is ended, what a projection has written is what
# its checkpoint says.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{PGOPTIONS} = '-c statement_timeout=100s';

my $node = new_server('kill', no_extension => 1, conf => <<'EOT');
shared_preload_libraries = 'event_store'
event_store.max_projectors = 4
max_worker_processes = 20
checkpoint_timeout = 1h
autovacuum = off
EOT

# In the midst of a batch, handlers stop at a gate if it is closed: an advisory lock.
$node->safe_psql('postgres', <<'EOT');
CREATE ROLE app LOGIN;
GRANT CREATE ON DATABASE postgres TO app;
GRANT CREATE ON SCHEMA public TO app;
CREATE EXTENSION event_store;
SET ROLE app;
SELECT event_store.create_event_table('ev');
CREATE FUNCTION gate(n int) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(n)';
CREATE TABLE by_batch (stream text PRIMARY KEY, events bigint, total bigint);
CREATE TABLE by_event (stream text PRIMARY KEY, events bigint, total bigint);
CREATE TABLE seen (position bigint PRIMARY KEY);
CREATE FUNCTION count_event(event event_store.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO seen VALUES (event.position);
	INSERT INTO by_event AS m VALUES (event.stream, 1, event.data::int)
		ON CONFLICT (stream) DO UPDATE SET events = m.events + 1, total = m.total + excluded.total
		WHERE m.events = event.version - 1;
	IF NOT FOUND THEN
		RAISE 'version % of % comes out of order', event.version, event.stream;
	END IF;
	PERFORM gate(1);
END $$;
SELECT event_store.create_projection('by_event', 'ev', function => 'count_event(event_store.event)', partitions => 3, max_attempts => 1);
SELECT event_store.create_projection('by_batch', 'ev', partitions => 3, max_attempts => 1, statement => '
	WITH written AS (
		INSERT INTO by_batch AS m SELECT stream, count(*), sum(data::int) FROM events GROUP BY stream
			ON CONFLICT (stream) DO UPDATE SET events = m.events + excluded.events, total = m.total + excluded.total
			RETURNING 1)
	SELECT gate(2) FROM written');
EOT

my $fold = 'SELECT stream, count(*), sum(data::int) FROM ev GROUP BY stream';
my @projections = qw(by_batch by_event);

# Each stream is as it was at the checkpoint of one of the partitions.
sub is_at_checkpoint
{
	my ($projection, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($node->safe_psql('postgres', <<"EOT"), '', $name);
WITH folds AS (
	SELECT c.partition, e.stream, count(*) AS events, sum(e.data::int) AS total
	  FROM event_store.projection_checkpoints c JOIN ev e ON e.position <= c.position
	 WHERE c.projection = '$projection'
	 GROUP BY 1, 2)
SELECT s.stream, m.*
  FROM (SELECT DISTINCT stream FROM ev) s LEFT JOIN $projection m USING (stream)
 WHERE NOT EXISTS (SELECT FROM folds f WHERE (f.stream, f.events, f.total) = (m.stream, m.events, m.total))
   AND (m.stream IS NOT NULL OR (SELECT count(*) FROM folds f WHERE f.stream = s.stream) = 3)
EOT
	return;
}

# Ways to end a batch, given the pid of a process that is in one.
sub pid_of { my ($type) = @_; return $node->safe_psql('postgres', "SELECT min(pid) FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid()"); }
my %ways = (
	'kill -9 of the projector' => sub { kill_9($node, $_[0]) },
	'kill -9 of the worker' => sub { kill_9($node, pid_of('event_store worker')) },
	'kill -9 of the checkpointer' => sub { kill_9($node, pid_of('checkpointer')) },
	'kill -9 of a writer' => sub { kill_9($node, pid_of('client backend')) },
	'an immediate shutdown' => sub { $node->stop('immediate'); $node->start },
	'a fast shutdown' => sub { $node->stop('fast'); $node->start },
	'pg_terminate_backend()' => sub { $node->safe_psql('postgres', "SELECT pg_terminate_backend($_[0], 60000)") });
my @rounds = (
	('kill -9 of the projector') x 3, 'an immediate shutdown', 'kill -9 of the worker', 'an immediate shutdown',
	'kill -9 of the checkpointer', 'a fast shutdown', 'pg_terminate_backend()', 'kill -9 of a writer');

for my $round (0 .. 19)
{
	my $way = $rounds[$round / 2];
	my $gate = $round % 2;    # of by_event, and by_batch
	my $begun = $node->safe_psql('postgres', q{SELECT coalesce(max(position), 0) FROM ev});
	my @writers = writers($node, 4, 'ev');

	# In the midst of a batch, somewhere behind the beginning of this round.
	ok( $node->poll_query_until('postgres', "SELECT bool_and(position > $begun) FROM event_store.projections"), "round $round: both projections go on");
	my $closed = $node->background_psql('postgres');
	$closed->query_safe("SELECT pg_advisory_lock($gate + 1)");
	my $in_batch = "FROM pg_stat_activity WHERE backend_type = 'event_store projector' AND wait_event = 'advisory'";
	$node->poll_query_until('postgres', "SELECT count(*) > 0 $in_batch") or die 'no batch stops at the gate';
	my $pid = $node->safe_psql('postgres', "SELECT min(pid) $in_batch");
	$ways{$way}->($pid);
	eval { $closed->quit };
	if ($way eq 'pg_terminate_backend()') { finish_writers($node, 'postgres', @writers) }
	else                                  { $_->finish for @writers }

	is_at_checkpoint($_, "round $round: after $way $_ is as its checkpoints say") for @projections;
	caught_up($node, $_, "round $round: $_ catches up") for @projections;
	is_fold($node, "TABLE $_", $fold, "round $round: $_ has every event once") for @projections;
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM seen'), $node->safe_psql('postgres', 'SELECT count(*) FROM ev'), 'every event was seen');
is($node->safe_psql('postgres', q{SELECT string_agg(DISTINCT status || errors || coalesce(last_error, ''), ' ') FROM event_store.projections}), 'running0', 'without errors');
is(background_complaints($node), '', 'nor complaints in the log');

log_is_clean($node);
$node->stop;
done_testing();
