# The results of a benchmark as Markdown, and as a chart.
package BenchReport;

use strict;
use warnings;

use Exporter 'import';
use Bench qw(missed);
use List::Util qw(max min);

our @EXPORT_OK = qw(chart escape figure markdown parse_records short_table);

my @fields = qw(kind work unit side title ours theirs ratio low high best target);

# Lines of tab-separated fields.  A record is a ratio against a side ("side"), or
# against something else ("versus"), or a figure by itself ("figure").
sub parse_records
{
	return map {
		chomp(my $line = $_);
		my @values = split /\t/, $line, -1;
		die "not a record: $line\n" unless @values == @fields && $values[0] =~ /^(?:side|versus|figure)$/;
		my %record;
		@record{@fields} = @values;
		\%record;
	} @_;
}

# Three digits that count.
sub figure
{
	my ($value) = @_;
	return $value eq '' ? ''
	  : $value >= 100   ? grouped(sprintf '%.0f', $value)
	  : $value >= 10    ? sprintf('%.1f', $value)
	  :                   sprintf('%.2f', $value);
}

# Counts are whole.
sub whole_or_figure { return $_[0] =~ /^\d+$/ ? grouped($_[0]) : figure($_[0]) }

sub grouped
{
	my ($digits) = @_;
	1 while $digits =~ s/^(\d+)(\d{3})/$1,$2/;
	return $digits;
}

sub target_text
{
	my ($target, $figure) = @_;
	return '' if $target eq '';
	my $text = $target =~ s/>=/≥/r =~ s/<=/≤/r;
	return $figure eq '' ? $text : missed($target, $figure) ? "$text: **missed**" : $text;
}

# One table whose columns are the sides, one of what has no column.
sub markdown
{
	my ($head, $sides, @records) = @_;
	my (%cell, %ours, @works, %titles);
	for my $record (grep { $_->{kind} eq 'side' } @records)
	{
		my $work = $record->{work};
		push @works, $work unless $ours{$work};
		$ours{$work} = figure($record->{ours}) . " $record->{unit}";
		$titles{ $record->{side} } = $record->{title};
		my $target = target_text($record->{target}, $record->{ratio});
		$cell{$work}{ $record->{side} } =
		  $record->{ratio} eq '' ? 'nothing'
		  : sprintf '**%s** (%s to %s)%s', (map { figure($record->{$_}) } qw(ratio low high)), $target && "; $target";
	}
	my @columns = grep { $titles{$_} } @$sides;
	my $text = $head;
	if (@works)
	{
		$text .= join '', "\n| work | event_store |", (map { " ÷ $titles{$_} |" } @columns), "\n|---|---:|", '---|' x @columns, "\n";
		for my $work (@works)
		{
			$text .= join '', "| $work | $ours{$work} |", (map { ' ' . ($cell{$work}{$_} // '') . ' |' } @columns), "\n";
		}
	}
	my @others = grep { $_->{kind} ne 'side' } @records;
	if (@others)
	{
		$text .= "\n| work | event_store | against | ratio | target |\n|---|---:|---|---|---|\n";
		for my $record (@others)
		{
			my $is_ratio = $record->{kind} eq 'versus';
			$text .= sprintf "| %s | %s %s | %s | %s | %s |\n", $record->{work}, $is_ratio ? figure($record->{ours}) : whole_or_figure($record->{ours}), $record->{unit},
			  $is_ratio ? "$record->{title}: " . figure($record->{theirs}) : '',
			  $is_ratio && $record->{ratio} ne '' ? sprintf('**%s** (%s to %s)', map { figure($record->{$_}) } qw(ratio low high))
			  : $is_ratio            ? 'nothing'
			  : $record->{low} ne '' ? figure($record->{low}) . ' to ' . figure($record->{high})
			  :                        '',
			  target_text($record->{target}, $is_ratio ? $record->{ratio} : $record->{ours});
		}
	}
	return $text;
}

# Ratios against the sides, and no more; for the README.
sub short_table
{
	my ($sides, @records) = @_;
	my (%cell, @works, %ours, %titles);
	for my $record (grep { $_->{kind} eq 'side' } @records)
	{
		my $work = $record->{work};
		push @works, $work unless $cell{$work};
		$titles{ $record->{side} } = $record->{title};
		$ours{$work} = figure($record->{ours}) . " $record->{unit}";
		$cell{$work}{ $record->{side} } = $record->{ratio} eq '' ? 'nothing' : figure($record->{ratio});
	}
	my @columns = grep { $titles{$_} } @$sides;
	return join '', '| work | event_store |', (map { " ÷ $titles{$_} |" } @columns), "\n|---|---:|", '---:|' x @columns, "\n",
	  map { my $work = $_; join '', "| $work | $ours{$work} |", (map { ' ' . ($cell{$work}{$_} // '') . ' |' } @columns), "\n" } @works;
}

sub escape
{
	my ($text) = @_;
	my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
	return $text =~ s/([&<>"])/$entity{$1}/gr;
}

my @colours = map { "#$_" } qw(222222 d1495b 2e86ab edae49 66a182 8d5a97);

# A line for each work, a dot for each ratio, on a logarithmic axis; whiskers from
# the least to the greatest; a tick where the target is.
sub chart
{
	my ($title, $sides, @records) = @_;
	my (%line, @works, %titles);
	for my $record (grep { $_->{ratio} ne '' } @records)
	{
		push @works, $record->{work} unless $line{ $record->{work} };
		push @{ $line{ $record->{work} } }, $record;
		$titles{ $record->{side} } = $record->{title} if $record->{kind} eq 'side';
	}
	die "nothing to draw\n" unless @works;
	my @limits = (0.5, 2, map { ($_->{low}, $_->{high}) } map { @$_ } values %line);
	my @ticks = map { my $decade = 10**$_; map { $decade * $_ } 1, 2, 5 } -6 .. 9;
	my ($low) = grep { $_ * 0.999 <= min(@limits) } reverse @ticks;
	my ($high) = grep { $_ * 1.001 >= max(@limits) } @ticks;
	@ticks = grep { $_ >= $low && $_ <= $high } @ticks;
	my ($left, $width, $top, $step) = (430, 560, 70, 20);
	my $x = sub { sprintf '%.1f', $left + $width * log($_[0] / $low) / log($high / $low) };
	my $bottom = $top + $step * @works;
	my ($total_width, $total_height) = ($left + $width + 30, $bottom + 45);
	my %colour;
	my @shown = grep { $titles{$_} } @$sides;
	@colour{@shown} = @colours[ 0 .. $#shown ];

	my $svg = qq{<svg xmlns="http://www.w3.org/2000/svg" width="$total_width" height="$total_height" viewBox="0 0 $total_width $total_height" font-family="sans-serif" font-size="12">\n}
	  . qq{<rect width="100%" height="100%" fill="white"/>\n}
	  . qq{<text x="12" y="22" font-size="15" font-weight="bold">} . escape($title) . "</text>\n";
	my $legend = 12;
	for my $side (@shown, 'other')
	{
		my $name = $titles{$side} // 'other (see the table)';
		my $colour = $colour{$side} // 'none';
		$svg .= sprintf qq{<circle cx="%d" cy="44" r="4.5" fill="%s" stroke="#222222"/><text x="%d" y="48">%s</text>\n}, $legend + 5, $colour, $legend + 14, escape($name);
		$legend += 32 + 7 * length $name;
	}
	for my $i (0 .. $#works)
	{
		my $y = $top + $step * $i;
		$svg .= sprintf qq{<rect x="0" y="%d" width="%d" height="%d" fill="#f3f3f3"/>\n}, $y, $total_width, $step if $i % 2;
	}
	for my $value (@ticks)
	{
		$svg .= sprintf qq{<line x1="%s" x2="%s" y1="%d" y2="%d" stroke="%s"/>\n}, $x->($value), $x->($value), $top, $bottom, abs($value - 1) < 1e-9 ? '#222222" stroke-width="1.5' : '#cccccc';
		$svg .= sprintf qq{<text x="%s" y="%d" text-anchor="middle" font-size="11">%s</text>\n}, $x->($value), $bottom + 15, 0 + sprintf('%.4g', $value);
	}
	$svg .= sprintf qq{<text x="%d" y="%d" text-anchor="middle">times as fast as the other (logarithmic); right of 1: event_store is faster or smaller</text>\n}, $left + $width / 2 - 60, $bottom + 34;
	for my $i (0 .. $#works)
	{
		my $middle = $top + $step * ($i + 0.5);
		$svg .= sprintf qq{<text x="%d" y="%.1f" text-anchor="end">%s</text>\n}, $left - 10, $middle + 4, escape(plain($works[$i]));
		my @here = @{ $line{ $works[$i] } };
		for my $k (0 .. $#here)
		{
			my $record = $here[$k];
			my $y = sprintf '%.1f', $middle + ($k - $#here / 2) * 2;
			my $colour = $record->{kind} eq 'side' ? $colour{ $record->{side} } : 'none';
			my $stroke = $colour eq 'none' ? '#222222' : $colour;
			$svg .= sprintf qq{<line x1="%s" x2="%s" y1="%s" y2="%s" stroke="%s"/>}, $x->($record->{low}), $x->($record->{high}), $y, $y, $stroke;
			$svg .= sprintf qq{<line x1="%s" x2="%s" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="2.5"/>}, ($x->($1)) x 2, $middle - 9, $middle + 9, $stroke
			  if $record->{target} =~ /^>= ([0-9.]+)$/;
			$svg .= sprintf qq{<circle cx="%s" cy="%s" r="4" fill="%s" stroke="#222222" stroke-width="0.7"><title>%s</title></circle>\n}, $x->($record->{ratio}), $y, $colour,
			  escape(plain("$record->{work}, against $record->{title}: ") . figure($record->{ratio}));
		}
	}
	return "$svg</svg>\n";
}

# Without the marks of Markdown.
sub plain { return $_[0] =~ s/[*`]//gr }

1;
