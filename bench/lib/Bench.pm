# What a benchmark knows of figures: reading what pgbench prints and logs, and
# the statistics.  Whatever is not as it should be is an error, never a figure.
package Bench;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(max min);

our @EXPORT_OK = qw(complaints median missed number parse_log parse_pgbench parse_results quantile ratio);

sub median { return quantile(0.5, @_) }

# The least of them that so large a part is no larger than; for the middle of an
# even number of them, the mean of two.
sub quantile
{
	my ($p, @values) = @_;
	die "a quantile of nothing\n" unless @values;
	die "a quantile of $p\n" unless $p > 0 && $p <= 1;
	@values = sort { $a <=> $b } map { number($_) } @values;
	my $place = $p * @values;
	my $i = int($place);
	return ($values[ $i - 1 ] + $values[$i]) / 2 if $p == 0.5 && $i == $place;
	$i-- if $i == $place;
	return $values[$i];
}

sub number
{
	my ($text) = @_;
	die 'not a number: ', defined $text ? "\"$text\"" : 'nothing', "\n"
	  unless defined $text && $text =~ /^-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i;
	return $text + 0;
}

# What pgbench prints: { tps, processed }.
sub parse_pgbench
{
	my ($text) = @_;
	die "pgbench has failed:\n$text\n" if $text =~ /^pgbench: (?:error|fatal)|aborted|Run was aborted/m;
	my ($failed) = $text =~ /^number of failed transactions: (\d+) /m;
	my ($processed) = $text =~ /^number of transactions actually processed: (\d+)/m;
	my ($tps) = $text =~ m{^tps = ([0-9.]+) \(without initial connection time\)}m;
	die "pgbench has not said all:\n$text\n" unless defined $failed && defined $processed && defined $tps;
	die "pgbench: $failed transactions have failed\n" if $failed;
	die "pgbench has done nothing:\n$text\n" unless $processed > 0 && $tps > 0;
	return { tps => number($tps), processed => $processed };
}

# The lines of pgbench's logs (--log): milliseconds of each transaction.
sub parse_log
{
	return map {
		my @fields = split;
		die "not a line of pgbench's log: $_\n" unless @fields >= 6 && $fields[2] =~ /^\d+$/;
		$fields[2] / 1000;
	} @_;
}

# Lines "side round figure": { side => { round => figure } }.  Each side has had
# each round, once.
sub parse_results
{
	my %results;
	for (@_)
	{
		my ($side, $round, $figure, @more) = split;
		die "not a result: $_\n" if !defined $figure || @more;
		die "$side has two results of round $round\n" if exists $results{$side}{$round};
		$results{$side}{$round} = number($figure);
	}
	die "no results\n" unless %results;
	my %rounds = map { join(' ', sort keys %$_) => 1 } values %results;
	die "not every side has had every round\n" if keys %rounds > 1;
	return \%results;
}

# One side's results set against another's: { ours, theirs } are medians,
# { ratio, low, high } the median and the limits of the rounds' ratios, { best }
# the ratio of the best rounds.  Above 1 is better: where less is better, it is
# theirs by ours.
sub ratio
{
	my ($ours, $theirs, $less_is_better) = @_;
	my @rounds = sort keys %$ours;
	die "not the same rounds\n" unless "@rounds" eq join ' ', sort keys %$theirs;
	die "a result of ours is not above 0\n" if grep { $_ <= 0 } values %$ours;
	die "a result is below 0\n" if grep { $_ < 0 } values %$theirs;
	my %figures = (ours => median(values %$ours), theirs => median(values %$theirs));
	return \%figures if grep { $_ == 0 } values %$theirs;    # they have done nothing: no ratio
	my @ratios = map { $less_is_better ? $theirs->{$_} / $ours->{$_} : $ours->{$_} / $theirs->{$_} } @rounds;
	$figures{ratio} = median(@ratios);
	$figures{low} = min(@ratios);
	$figures{high} = max(@ratios);
	$figures{best} = $less_is_better
	  ? min(values %$theirs) / min(values %$ours)
	  : max(values %$ours) / max(values %$theirs);
	return \%figures;
}

# Whether a figure misses a target such as ">= 1.2" or "<= 50".
sub missed
{
	my ($target, $figure) = @_;
	my ($operator, $limit) = $target =~ /^([<>]=) ([0-9.]+)$/ or die "not a target: $target\n";
	return $operator eq '>=' ? $figure < $limit : $figure > $limit;
}

# The lines of a server's log that no run of a benchmark may leave.  57014: a
# waiter was told to stop.  A database that is dropped is no longer vacuumed.
sub complaints
{
	return grep {
		/ (?:WARNING|ERROR|FATAL|PANIC):  / && !/\] 57014 |\] 57P01 FATAL:  terminating autovacuum process/
		  || /was terminated by signal|^TRAP:/
	} @_;
}

1;
