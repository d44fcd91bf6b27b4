# Running the hookscript.
package LabPve::Hookscript;
use v5.36;
use Exporter 'import';
use LabPve::Machine;

our @EXPORT = qw(check_hookscript note_time exec_hookscript $SNIPPETS);

our $SNIPPETS = '/var/lib/vz/snippets';

# PVE::GuestHelpers::check_hookscript, with PVE::Storage::Plugin::parse_volname and filesystem_path for the storage "local".
sub check_hookscript($volume) {
    my ($storage, $name) = $volume =~ m|^([^:]+):snippets/([^/]+)$| or die "hookscript: unable to parse volume ID '$volume'\n";
    die "storage '$storage' does not exist\n" if $storage ne 'local';
    my $path = "$SNIPPETS/$name";
    die "hookscript '$path' does not exist\n" if !-f $path;
    die "hookscript '$path' is not executable\n" if !-x $path;
    return $path;
}

sub note_time($id, $what, $error, $since) {
    open(my $times, '>>', "$LAB/hooks") or return;
    printf $times "%s %s %s %.3f\n", $id, $what, $error ? 'failed' : 'good', uptime() - $since;
}

# PVE::GuestHelpers::exec_hookscript: an error counts only for pre-start.
sub exec_hookscript($main, $id, $phase, $stop_on_error = 0) {
    my $volume = $main->{hookscript} or return;
    my $since = uptime();
    eval {
        my $hook = check_hookscript($volume);
        run_command([$hook, $id, $phase]);
    };
    my $error = $@;
    note_time($id, $phase, $error, $since);
    return if !$error;
    my $text = "hookscript error for $id on $phase: $error";
    die $text if $stop_on_error;
    warn $text;
}

1;
