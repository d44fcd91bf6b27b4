# Files, time, locks and programs, as PVE's tools have them.
package LabPve::Machine;
use v5.36;
use Exporter 'import';
use Fcntl qw(:flock);
use IO::Select;
use POSIX ();

our @EXPORT = qw(read_file slurp_word write_file write_sysfs names uptime pause lock_file lock_config run_command $NODE $PVE $RUN $LAB);

our $NODE = (POSIX::uname())[1] =~ s/\..*//r;
our $PVE = '/etc/pve';
our $RUN = '/run/qemu-server';          # /var/run is a link to /run, and PVE names both
our $LAB = '/run/lab-pve';              # the stand-in's own notes: who works on what, what the hooks took

sub read_file($path) {
    open(my $file, '<', $path) or return undef;
    local $/;
    return scalar(<$file>) // '';
}

sub slurp_word($path) { my $text = read_file($path) // return undef; $text =~ s/\s+$//; return $text }

# PVE::Tools::file_set_contents: another name, then a rename.
sub write_file($path, $text) {
    open(my $file, '>', "$path.tmp.$$") or die "unable to open file '$path.tmp.$$' - $!\n";
    print $file $text;
    close($file) or die "closing file '$path.tmp.$$' failed - $!\n";
    rename("$path.tmp.$$", $path) or die "rename '$path' failed - $!\n";
}

sub write_sysfs($path, $text) {
    open(my $file, '>', $path) or return 0;
    my $written = syswrite($file, $text);
    return defined($written);
}

sub names($folder) {
    opendir(my $open, $folder) or return ();
    my @names = sort grep { !/^\./ } readdir($open);
    return @names;
}

# Seconds since boot. perl-base has no Time::HiRes.
sub uptime() {
    my $time = pack('q2', 0, 0);
    syscall(228, 7, $time);             # clock_gettime, CLOCK_BOOTTIME
    my ($seconds, $nanoseconds) = unpack('q2', $time);
    return $seconds + $nanoseconds / 1e9;
}

sub pause($seconds) { select(undef, undef, undef, $seconds) }

# PVE::Tools::lock_file: the file stays, its lock goes with the process. Perl gives no child the descriptor.
sub lock_file($path, $timeout, $code) {
    open(my $lock, '>>', $path) or die "can't open lock file '$path' - $!\n";
    my $until = uptime() + $timeout;
    until (flock($lock, LOCK_EX | LOCK_NB)) {
        die "can't lock file '$path' - got timeout\n" if uptime() >= $until;
        pause(0.05);
    }
    my $result = eval { $code->() };
    my $error = $@;
    close($lock);
    die $error if $error;
    return $result;
}

# PVE::AbstractConfig::lock_config: 10 seconds to get it; qm cleanup gives itself 60.
sub lock_config($vmid, $code, $timeout = 10) {
    return lock_file("/var/lock/qemu-server/lock-$vmid.conf", $timeout, $code);
}

# PVE::Cmd::run. It reads both pipes until their very end, so whoever still has one of them keeps PVE waiting.
sub run_command($command, %options) {
    pipe(my $in, my $to_child) or die "pipe: $!\n";
    pipe(my $out, my $child_out) or die "pipe: $!\n";
    pipe(my $err, my $child_err) or die "pipe: $!\n";
    my $child = fork() // die "fork: $!\n";
    if (!$child) {
        $SIG{$_} = 'DEFAULT' for qw(TERM INT QUIT PIPE);
        open(STDIN, '<&', $in);
        open(STDOUT, '>&', $child_out);
        open(STDERR, '>&', $child_err);
        $ENV{LC_ALL} = 'C';
        $ENV{LVM_SUPPRESS_FD_WARNINGS} = '1';
        no warnings 'exec';
        exec {$command->[0]} @$command or do {
            print STDERR "exec $command->[0]: $!\n";
            POSIX::_exit(255);
        };
    }
    close($_) for $in, $to_child, $child_out, $child_err;
    my $both = IO::Select->new($out, $err);
    while ($both->count) {
        for my $pipe ($both->can_read(1)) {
            my $read = sysread($pipe, my $part, 4096);
            next if !defined($read) && $!{EINTR};
            if (!$read) {
                $both->remove($pipe);
                next;
            }
            next if $options{quiet};
            print {$pipe == $out ? *STDOUT : *STDERR} $part;
        }
    }
    waitpid($child, 0);
    my $ended = $?;
    return $ended if $options{noerr} || !$ended;
    my $why = $ended & 127 ? 'got signal ' . ($ended & 127) : 'exit code ' . ($ended >> 8);
    die "command '" . join(' ', @$command) . "' failed: $why\n";
}

1;
