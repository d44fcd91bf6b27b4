# The daemon that hears when a QEMU ends.
package LabPve::Qmeventd;
use v5.36;
use Exporter 'import';
use IO::Select;
use POSIX ();
use Socket;
use LabPve::Machine;

our @EXPORT = qw(qmeventd);

# src/qmeventd/qmeventd.c: QEMU connects to it. A VM that shut itself down is told to quit; when the line is cut, qm cleanup.
sub qmeventd() {
    my $path = '/var/run/qmeventd.sock';
    unlink($path);
    socket(my $server, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
    bind($server, sockaddr_un($path)) or die "bind $path: $!\n";
    listen($server, 10) or die "listen: $!\n";
    $SIG{CHLD} = 'IGNORE';
    $SIG{PIPE} = 'IGNORE';
    my ($all, %client) = (IO::Select->new($server));
    while (1) {
        for my $ready ($all->can_read()) {
            if ($ready == $server) {
                accept(my $new, $server) or next;
                my ($pid) = unpack('i', getsockopt($new, SOL_SOCKET, 17));                      # SO_PEERCRED
                $client{$new} = { pid => $pid, buffer => '', clean => 0, guest => 0 };
                $all->add($new);
                next;
            }
            my $qemu = $client{$ready};
            if (!sysread($ready, $qemu->{buffer}, 4096, length($qemu->{buffer}))) {
                $all->remove($ready);
                delete $client{$ready};
                close($ready);
                next if !$qemu->{vmid} || fork();
                exec('/usr/sbin/qm', 'cleanup', $qemu->{vmid}, $qemu->{clean}, $qemu->{guest}) or POSIX::_exit(1);
            }
            qmeventd_line($ready, $qemu, $1) while $qemu->{buffer} =~ s/^(.*?)\r?\n//;
        }
    }
}

sub qmeventd_line($socket, $qemu, $line) {
    if ($line =~ /^\{"QMP"/) {                                                                  # handle_qmp_handshake
        ($qemu->{vmid}) = (read_file("/proc/$qemu->{pid}/cmdline") // '') =~ m|\0-pidfile\0[^\0]*/(\d+)\.pid\0|;
        syswrite($socket, qq({"execute":"qmp_capabilities"}\n));
    } elsif ($line =~ /"event": ?"SHUTDOWN"/) {                                                 # handle_qmp_event, terminate_check
        $qemu->{clean} = 1;
        $qemu->{guest} = $line =~ /"guest": ?true/ ? 1 : 0;
        syswrite($socket, qq({"execute":"query-status"}\n));
    } elsif ($line =~ /"return".*"status": ?"([^"]+)"/) {                                       # handle_qmp_return
        syswrite($socket, qq({"execute":"quit"}\n)) if $1 !~ /^(running|paused|suspended|prelaunch)$/;
    }
}

1;
