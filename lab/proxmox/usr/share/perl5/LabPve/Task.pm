# What one click starts: a worker, its log and its Stop button.
package LabPve::Task;
use v5.36;
use Exporter 'import';
use POSIX ();
use LabPve::Machine;

our @EXPORT = qw(task stop_task);

# PVE::RESTEnvironment::fork_worker: a session of its own, stderr merged into stdout, SIGTERM made an exception at once.
# The caller copies what it says, which is the task's log, until its end.
sub task($verb, $vmid, $code) {
    pipe(my $from, my $to) or die "pipe: $!\n";
    my $worker = fork() // die "fork: $!\n";
    if (!$worker) {
        POSIX::setsid();
        close($from);
        open(STDIN, '<', '/dev/null');
        open(STDOUT, '>&', $to);
        open(STDERR, '>&', $to);
        close($to);
        $SIG{TERM} = $SIG{INT} = $SIG{QUIT} = sub { die "received interrupt\n" };
        $SIG{PIPE} = 'IGNORE';
        write_file("$LAB/$vmid.task", $$);
        eval { $code->() };
        my $error = $@;
        unlink("$LAB/$vmid.task");
        print $error ? "TASK ERROR: $error" : "TASK OK\n";
        POSIX::_exit($error ? 255 : 0);
    }
    close($to);
    open(my $log, '>>', "/var/log/pve/tasks/$verb-$vmid");
    while (sysread($from, my $part, 4096)) {
        print $part;
        syswrite($log, $part);
    }
    waitpid($worker, 0);
    return $? ? 255 : 0;
}

# PVE::RESTEnvironment::check_worker: SIGTERM to the worker and all in its group, SIGKILL if the worker outlives it by 5 s.
sub stop_task($vmid) {
    my $worker = read_file("$LAB/$vmid.task") or die "no task for $vmid\n";
    kill('TERM', -$worker);
    for (1 .. 50) {
        return 0 if !kill(0, $worker);
        pause(0.1);
    }
    kill('KILL', -$worker);
    return 0;
}

1;
