# The figures of the benchmark: parsing, statistics, and what it makes of them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../../bench/lib";

use File::Temp qw(tempdir);
use Test::More;

use Bench qw(complaints median missed number parse_log parse_pgbench parse_results quantile ratio);
use BenchReport qw(chart escape figure markdown parse_records short_table);

sub dies
{
	my ($code, $pattern, $name) = @_;
	my $died = !eval { $code->(); 1 };

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($died ? $@ : 'it did not die', $pattern, $name);
	return;
}

# Statistics
is(median(3, 1, 2), 2, 'the median of three');
is(median(4, 1, 3, 2), 2.5, 'the median of four');
is(median(10, 9), 9.5, 'numbers are no texts');
is(median(7), 7, 'the median of one');
is(quantile(0.95, 1 .. 100), 95, 'the 95 % quantile of 1 to 100');
is(quantile(0.999, 1 .. 1000), 999, 'the 99.9 % quantile of 1 to 1,000');
is(quantile(0.99, 1 .. 10), 10, 'the 99 % quantile of few is the greatest');
is(quantile(1, 5, 6), 6, 'the 100 % quantile is the greatest');
dies(sub { median() }, qr/quantile of nothing/, 'nothing has no median');
dies(sub { quantile(0, 1) }, qr/a quantile of 0/, 'nor a 0 % quantile');
dies(sub { median(1, 'x') }, qr/not a number: "x"/, 'texts have no median');
dies(sub { median(1, 'nan') }, qr/not a number: "nan"/, 'nan is no number');
dies(sub { number(undef) }, qr/not a number: nothing/, 'nothing is no number');
is(number('1.5e+06'), 1500000, 'awk writes great numbers so');

my $figures = ratio({ 1 => 10, 2 => 20, 3 => 30 }, { 1 => 10, 2 => 10, 3 => 60 });
is_deeply($figures, { ours => 20, theirs => 10, ratio => 1, low => 0.5, high => 2, best => 0.5 },
	'the ratio is the median of the ratios of rounds');
$figures = ratio({ 1 => 2, 2 => 4 }, { 1 => 4, 2 => 4 }, 1);
is_deeply($figures, { ours => 3, theirs => 4, ratio => 1.5, low => 1, high => 2, best => 2 },
	'where less is better it is theirs by ours');
is_deeply(ratio({ 1 => 5 }, { 1 => 0 }), { ours => 5, theirs => 0 }, 'no ratio to one who has done nothing');
dies(sub { ratio({ 1 => 0 }, { 1 => 5 }) }, qr/ours is not above 0/, 'we must have done something');
dies(sub { ratio({ 1 => 1 }, { 2 => 1 }) }, qr/not the same rounds/, 'only the same rounds can be compared');

ok(missed('>= 1.2', 1.19), 'a target that is missed');
ok(!missed('>= 1.2', 1.2), 'a target that is reached');
ok(missed('<= 50', 51), 'an upper limit');
ok(!missed('<= 0', 0), 'an upper limit of 0');
dies(sub { missed('about 5', 5) }, qr/not a target/, 'a target must be one');

# Results
is_deeply(parse_results("a 1 5\n", "b 1 6\n", "a 2 7\n", "b 2 8.5\n"), { a => { 1 => 5, 2 => 7 }, b => { 1 => 6, 2 => 8.5 } }, 'results');
dies(sub { parse_results() }, qr/no results/, 'no results');
dies(sub { parse_results("a 1 5\n", "b 2 6\n") }, qr/not every side has had every round/, 'a round is missing');
dies(sub { parse_results("a 1 5\n", "a 1 6\n") }, qr/two results/, 'a round twice');
dies(sub { parse_results("a 1\n") }, qr/not a result/, 'a figure is missing');
dies(sub { parse_results("a 1 5 6\n") }, qr/not a result/, 'a figure too many');

# pgbench
my $good = <<'EOT';
pgbench (15.20 (Debian 15.20-0+deb12u1))
transaction type: append.sql
scaling factor: 1
query mode: prepared
number of clients: 8
number of threads: 2
maximum number of tries: 1
duration: 2 s
number of transactions actually processed: 14862
number of failed transactions: 0 (0.000%)
latency average = 1.075 ms
initial connection time = 10.163 ms
tps = 7440.126349 (without initial connection time)
EOT
is_deeply(parse_pgbench($good), { tps => 7440.126349, processed => 14862 }, 'what pgbench prints');
dies(sub { parse_pgbench($good =~ s/failed transactions: 0/failed transactions: 3/r) }, qr/3 transactions have failed/, 'transactions have failed');
dies(sub { parse_pgbench("pgbench: error: client 0 script 0 aborted in command 3 query 0: ERROR:  x\n$good") }, qr/pgbench has failed/, 'a client has given up');
dies(sub { parse_pgbench("${good}pgbench: error: Run was aborted; the above results are incomplete.\n") }, qr/pgbench has failed/, 'the run was aborted');
dies(sub { parse_pgbench($good =~ s/^tps.*\n//mr) }, qr/not said all/, 'no speed');
dies(sub { parse_pgbench('') }, qr/not said all/, 'nothing');
dies(sub { parse_pgbench($good =~ s/processed: \d+/processed: 0/r) }, qr/done nothing/, 'no transactions');
is_deeply([ parse_log("0 1 1075 0 1764380000 12345\n", "3 9 250 0 1764380001 99\n") ], [ 1.075, 0.25 ], "lines of pgbench's log");
dies(sub { parse_log("0 1 failed 0 1764380000 12345\n") }, qr/not a line of pgbench's log/, 'a failed transaction in it');
dies(sub { parse_log("0 1 1075\n") }, qr/not a line of pgbench's log/, 'half a line');

# The server's log
my $prefix = '2026-01-01 00:00:00.000 UTC [123]';
is_deeply([ complaints("$prefix 00000 LOG:  checkpoint starting\n", "$prefix 57014 u\@d ERROR:  canceling statement due to user request\n", "$prefix 57P01 FATAL:  terminating autovacuum process due to administrator command\n", "$prefix 00000 u\@d STATEMENT:  SELECT 1\n") ],
	[], 'what may be in the log');
for my $line ("$prefix 23505 u\@d ERROR:  duplicate key\n", "$prefix 01000 WARNING:  x\n", "$prefix 53300 FATAL:  x\n", "$prefix XX000 PANIC:  x\n", "TRAP: FailedAssertion\n", "$prefix 00000 LOG:  server process (PID 1) was terminated by signal 11: Segmentation fault\n")
{
	is(scalar(complaints("$prefix 00000 LOG:  x\n", $line)), 1, 'what may not: ' . substr($line, 0, 60) =~ s{\n}{}r);
}

# The report
my @lines = (
	join("\t", 'side', 'append, 8 clients', '/s', 'plain', 'plain table', 9500, 10000, 0.95, 0.9, 1.1, 0.96, '>= 1.0'),
	join("\t", 'side', 'append, 8 clients', '/s', 'slow', 'Slow & <Old>', 9500, 950, 10, 9, 12, 10, '>= 5.0'),
	join("\t", 'side', 'feed', 'events/s', 'slow', 'Slow & <Old>', 9500, 0, '', '', '', '', ''),
	join("\t", 'versus', 'projection', 'events/s', '', 'by hand', 1000, 1100, 0.91, 0.85, 0.95, 0.9, '>= 0.8'),
	join("\t", 'figure', 'from commit to notification', 'ms', '', '', 0.123, '', '', 0.1, 0.2, '', '<= 7'),
	join("\t", 'figure', 'events missed', 'events', '', '', 12345, '', '', '', '', '', '<= 0'));
my @records = parse_records(map { "$_\n" } @lines);
my $markdown = markdown("# Head\n", [ 'plain', 'fast', 'slow' ], @records);
like($markdown, qr/^# Head\n/, 'the head');
like($markdown, qr/^\| work \| event_store \| ÷ plain table \| ÷ Slow & <Old> \|$/m, 'columns of the sides that took part');
like($markdown, qr{^\| append, 8 clients \| 9,500 /s \| \*\*0.95\*\* \(0.90 to 1.10\); ≥ 1.0: \*\*missed\*\* \| \*\*10.0\*\* \(9.00 to 12.0\); ≥ 5.0 \|$}m, 'ratios, targets');
like($markdown, qr{^\| feed \| 9,500 events/s \|  \| nothing \|$}m, 'one who did not take part, one who has done nothing');
like($markdown, qr{^\| projection \| 1,000 events/s \| by hand: 1,100 \| \*\*0.91\*\* \(0.85 to 0.95\) \| ≥ 0.8 \|$}m, 'against something else');
like($markdown, qr{^\| from commit to notification \| 0.12 ms \|  \| 0.10 to 0.20 \| ≤ 7 \|$}m, 'a figure by itself');
like($markdown, qr{^\| events missed \| 12,345 events \|  \|  \| ≤ 0: \*\*missed\*\* \|$}m, 'a count');
my %columns;
for (grep { /^\|/ } split /\n/, $markdown)
{
	my $bars = () = /\|/g;
	$columns{$bars}++;
}
is_deeply(\%columns, { 5 => 4, 6 => 5 }, 'all rows of a table have its columns');
is(short_table([ 'plain', 'slow' ], @records), <<'EOT', 'the short form');
| work | event_store | ÷ plain table | ÷ Slow & <Old> |
|---|---:|---:|---:|
| append, 8 clients | 9,500 /s | 0.95 | 10.0 |
| feed | 9,500 events/s |  | nothing |
EOT
dies(sub { parse_records("side\tx\n") }, qr/not a record/, 'half a record');
dies(sub { parse_records(join("\t", 'other', (1) x 11) . "\n") }, qr/not a record/, 'a record of no kind');
is(figure(1234567.8), '1,234,568', 'great figures');
is(figure(0), '0.00', 'nothing is a figure');

my $svg = chart('A & B', [ 'plain', 'fast', 'slow' ], @records);
is(well_formed($svg), '', 'the chart is well-formed');
my $dots = () = $svg =~ /<title>/g;
is($dots, 3, 'a dot for each ratio');
unlike($svg, qr/<Old>|A & B/, 'texts are escaped');
unlike($svg, qr/nan|inf/i, 'all places are numbers');
for my $place ($svg =~ /<circle cx="([^"]*)" [^>]*><title>/g)
{
	ok($place > 430 && $place < 990, "$place is on the axis");
}
dies(sub { chart('x', ['plain'], $records[4]) }, qr/nothing to draw/, 'a chart of nothing');
is(escape(q{<a b="c">&}), '&lt;a b=&quot;c&quot;&gt;&amp;', 'escaping');

# The program around it
my $dir = tempdir(CLEANUP => 1);
my $figures_program = "$FindBin::Bin/../../bench/figures";
is(run_program($good, 'pgbench'), "7440.126349 14862\n", 'figures pgbench');
isnt(run_program('', 'pgbench'), '', 'it fails, and says so');
isnt($?, 0, 'by its status too');
is(run_program("event_store 1 10\nplain 1 5\n", 'sides', 'w', '/s', 'plain=1.0'),
	join("\t", 'side', 'w', '/s', 'plain', 'plain table', 10, 5, 2, 2, 2, 2, '>= 1.0') . "\n", 'figures sides');
is(run_program("event_store 1 10\nplain 1 5\n", 'sides', 'w', 'ms', ''),
	join("\t", 'side', 'w', 'ms', 'plain', 'plain table', 10, 5, 0.5, 0.5, 0.5, 0.5, '') . "\n", 'less is better for some units');
like(run_program("event_store 1 10\n", 'sides', 'w', '/s'), qr/nobody to compare with/, 'one side alone');
isnt($?, 0, 'is no result');
is(run_program("a 1 10\nb 1 5\n", 'versus', 'w', '/s', 'a', 'b', 'title', '>= 3'),
	join("\t", 'versus', 'w', '/s', '', 'title', 10, 5, 2, 2, 2, 2, '>= 3') . "\n", 'figures versus');
like(run_program("a 1 10\n", 'versus', 'w', '/s', 'a', 'b', 'title'), qr/no results of b/, 'a side is missing');
is(run_program("a 1 10\na 1 30\nb 1 9\na 2 20\n", 'summary', 'w', 'ms', 'a', '<= 50'),
	join("\t", 'figure', 'w', 'ms', '', '', 20, '', '', 20, 20, '', '<= 50') . "\n", 'figures summary');
is(run_program("$prefix 00000 LOG:  x\n", 'complaints'), '', 'figures complaints');
is($?, 0, 'nothing to complain of');
like(run_program("$prefix 23505 ERROR:  x\n", 'complaints'), qr/23505/, 'something is');
isnt($?, 0, 'it fails then');
open my $records_file, '>', "$dir/records" or die;
print $records_file map { "$_\n" } @lines;
close $records_file;
is(run_program("# Head\n", 'report', "$dir/records", "$dir/md", "$dir/svg", 'A & B', 'plain', 'slow'), '', 'figures report');
ok(-s "$dir/md" && -s "$dir/svg", 'it writes both files');

# What bench/run is told, and what it is made of
my $bench = "$FindBin::Bin/../../bench";
like(`ONLY=nothing $bench/run 2>&1`, qr/^no part is named "nothing"; there are: append /, 'a part that is not there');
is($? >> 8, 2, 'fails');
like(`ONLY= PEERS=nobody $bench/run 2>&1`, qr/^no peer is named "nobody"/, 'a peer that is not there');
is($? >> 8, 2, 'fails');
my ($all) = do { local (@ARGV, $/) = "$bench/run"; <> } =~ /^all='(.*)'$/m;
is(join(' ', sort split / /, $all), join(' ', map { s{.*/(.*)\.sh}{$1}r } glob "$bench/parts/*.sh"), 'each part has its file');
for my $side (map { s{.*/}{}r } glob "$bench/peers/*")
{
	ok(-s "$bench/peers/$side/create.sql", "$side can be made");
	open my $about, '<', "$bench/peers/$side/about" or die;
	my @about = <$about>;
	is(scalar(@about), $side eq 'event_store' ? 1 : 2, "$side has a title, and says what can be compared");
}

done_testing();

# What the program prints, errors included; its status is in $?.
sub run_program
{
	my ($input, @arguments) = @_;
	open my $file, '>', "$dir/input" or die;
	print $file $input;
	close $file;
	my $command = join ' ', map { "'" . s/'/'\\''/gr . "'" } $figures_program, @arguments;
	return scalar `$command < $dir/input 2>&1`;
}

# What is wrong with XML; enough for what has neither comments nor CDATA.
sub well_formed
{
	my ($xml) = @_;
	my @open;
	my $roots = 0;

	while ($xml =~ /\G(?:([^<>&]|&(?:amp|lt|gt|quot);)+|<(\/?)(\w+)((?:\s+[\w:-]+="[^"<&]*(?:&(?:amp|lt|gt|quot);[^"<&]*)*")*)\s*(\/?)>)/gc)
	{
		my ($close, $name, $attributes, $empty) = ($2, $3, $4, $5);
		next unless defined $name;
		my %seen;
		$seen{$_}++ for $attributes =~ /([\w:-]+)=/g;
		return "an attribute twice in $name" if grep { $_ > 1 } values %seen;
		if ($close) { return "</$name> does not close anything" unless @open && pop(@open) eq $name }
		else
		{
			$roots++ unless @open;
			push @open, $name unless $empty;
		}
	}
	return 'text that is no XML: ' . substr($xml, pos($xml) // 0, 60) if (pos($xml) // 0) < length $xml;
	return "$open[-1] is not closed" if @open;
	return $roots == 1 ? '' : 'not one root';
}
