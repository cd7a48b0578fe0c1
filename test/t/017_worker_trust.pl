# The worker is a superuser: the owner of a database must not get it to run his
# code, nor to be anybody else.
use strict;
use warnings;

use EventStoreTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_server('trust', allows_streaming => 1, conf => "shared_preload_libraries = 'event_store'\nmax_prepared_transactions = 5", no_extension => 1);
$node->safe_psql('postgres', 'CREATE ROLE mallory LOGIN CREATEDB; CREATE ROLE puppet');
my @as_mallory = (extra_params => [ '-U', 'mallory' ]);
$node->safe_psql('postgres', 'CREATE DATABASE m', @as_mallory);

# Settings that hold for whoever connects, if they are not undone.
$node->safe_psql('postgres', "ALTER DATABASE m SET $_", @as_mallory)
  for 'role = puppet', 'session_authorization = puppet',
  'exit_on_error = on', 'search_path = public, pg_catalog',
  'default_transaction_read_only = on', 'default_transaction_isolation = serializable', 'statement_timeout = 1', 'row_security = off';

# Our own sessions are not to suffer from them.
my @plainly = (connstr => $node->connstr('m') . " options='-c role=none -c default_transaction_read_only=off -c statement_timeout=0"
	  . " -c row_security=on -c exit_on_error=off -c search_path=public'");

$node->safe_psql('m', <<'EOT', @as_mallory, @plainly);
CREATE EXTENSION event_store;
CREATE FUNCTION evil() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE LOG 'evil as %, session of %', current_user, session_user;
	IF session_user <> 'mallory' THEN
		PERFORM set_config('role', 'none', false);
		EXECUTE 'ALTER ROLE mallory SUPERUSER';
	END IF;
	RETURN true;
END $$;
CREATE FUNCTION public.evil_equal(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil()';
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.evil_equal);
SELECT event_store.create_event_table('t');
CREATE FUNCTION lie() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN public.evil(); END';
CREATE INDEX ON t ((lie())) WHERE lie();
CREATE POLICY p ON t FOR SELECT USING (evil());
GRANT SELECT ON t TO public;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SELECT event_store.append('t', 's-1', 'T', '{}');
EOT

my $looked = '';
for (1 .. 1000)
{
	$looked = $node->safe_psql('m', 'SELECT mark FROM event_store.feed_marks', @plainly);
	last if $looked eq '1';
}
is($looked, '1', 'the worker has looked at the table');
unlike(slurp_file($node->logfile), qr/evil as .*session of (?!mallory)/, 'without running any code of its owner');
is($node->safe_psql('postgres', q{SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'}), 'f', 'who has not become a superuser');

# What the worker writes is nobody's to take over.
refused($node, q{SELECT 1 FROM event_store.feed_marks}, '42P01', '', 'there is no such table where the extension is not');
for my $sql ('INSERT INTO event_store.feed_marks VALUES (1, 1, now())', 'CREATE TRIGGER x BEFORE UPDATE ON event_store.feed_marks FOR EACH ROW EXECUTE FUNCTION evil()',
	'DROP TABLE event_store.feed_marks', 'CREATE TABLE event_store.x ()', 'ALTER EXTENSION event_store DROP TABLE event_store.feed_marks')
{
	my ($result, $stdout, $stderr) = $node->psql('m', $sql, @as_mallory, @plainly);
	like($stderr, qr/must be owner|permission denied/, "refused: $sql");
}

log_is_clean($node);
$node->stop;
done_testing();
